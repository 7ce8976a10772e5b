"""Rows that stand for classes or single images, what they teach, and how they follow a batch."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from pplr_lightning.functional.checks import check_fraction, check_labels, check_shape

RULES = ("every", "hardest", "mean")


@torch.no_grad()
def update_prototypes(
    prototypes: Tensor,
    features: Tensor,
    targets: Tensor,
    *,
    momentum: float,
    rule: str = "every",
) -> Tensor:
    """Move the prototypes of a batch's classes towards its features.

        c_y <- unit(m c_y + (1 - m) u_i),    y = y_i

    as the memory of Dai et al., "Cluster Contrast for Unsupervised Person Re-Identification", ACCV
    2022, and, with images for classes, that of Ge et al., "Self-paced Contrastive Learning with
    Hybrid Memory", NeurIPS 2020. m is the share of the **old** row: with 0.1 and many images of a
    class in a batch the row ends near the last of them.

    Args:
        prototypes: L2-normalised rows of the classes, or of the images that ``targets`` number,
            (C, D). They are not changed.
        features: L2-normalised, (B, D).
        targets: Rows 0 to C - 1 that the features belong to, (B,).
        momentum: m, in [0, 1].
        rule: Which images move the row of their class: ``every`` one, one after the other in the
            order of the batch; ``hardest``, once, the one of least cosine to the old row, the first
            among equals; ``mean``, once, the mean of their features.

    Returns:
        New rows, (C, D), without a gradient: those of the batch's classes are L2-normalised, the
        others equal the old ones to the last bit.

    Raises:
        ValueError: The shapes do not fit, an option is out of range, ``rule`` is unknown, or
            ``targets`` on the CPU are out of range (on a GPU the device's own assertion fails).

    Example:
        >>> old = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
        >>> seen = torch.tensor([[0.0, 1.0]])
        >>> update_prototypes(old, seen, torch.tensor([0]), momentum=0.5)
        tensor([[0.7071, 0.7071],
                [0.0000, 1.0000]])
    """
    _check_rows(prototypes, features)
    check_labels("targets", targets, len(features), len(prototypes))
    check_fraction("momentum", momentum, "it is the share of the old row")
    if rule not in RULES:
        raise ValueError(f"rule must be one of {', '.join(RULES)}, got {rule!r}")
    rows, features = prototypes.clone(), features.to(prototypes)
    targets = targets.to(prototypes.device)
    if rule == "every":
        for image in range(len(features)):  # slices, as reading a target would wait for the GPU
            one = slice(image, image + 1)
            _move(rows, features[one], targets[one], momentum)
    elif len(features):
        choose = _hardest_features if rule == "hardest" else _mean_features
        _move(rows, choose(rows, features, targets), targets, momentum)
    return rows


def _move(rows: Tensor, features: Tensor, targets: Tensor, momentum: float) -> None:
    """Move rows (C, D), in place, towards features (B, D) that are equal for equal targets."""
    old = rows.index_select(0, targets)
    moved = F.normalize(momentum * old + (1 - momentum) * features, dim=1)
    rows.index_copy_(0, targets, moved)


def _hardest_features(rows: Tensor, features: Tensor, targets: Tensor) -> Tensor:
    """Return the feature farthest from its row, for each image that of its class, (B, D)."""
    # Not a matrix product, which autocast would round, and which may part equal rows.
    cosines = (rows.index_select(0, targets) * features).sum(dim=1)
    rivals = torch.where(targets[:, None] == targets, cosines, torch.inf)  # (B, B)
    is_least = rivals == rivals.amin(dim=1, keepdim=True)
    # Which of several equals argmin finds is left open.
    places = torch.arange(len(targets), device=targets.device)
    return features[torch.where(is_least, places, len(targets)).amin(dim=1)]


def _mean_features(rows: Tensor, features: Tensor, targets: Tensor) -> Tensor:
    """Return the mean feature, for each image that of its class, (B, D)."""
    # How many targets are smaller: a number of its own for every class, below B whatever C is.
    numbers = (targets[:, None] > targets).sum(dim=1)
    return class_means(features, numbers, len(targets))[numbers]


def prototype_loss(
    features: Tensor,
    prototypes: Tensor,
    targets: Tensor,
    *,
    temperature: float,
    floor: float = 0.0,
) -> Tensor:
    """Tell every image's class from the others by their prototypes.

    With E_ik = exp(u_i · c_k / t) and the floor f,

        p_i = E_iy / (sum_k E_ik + f),    loss = mean_i of -log(p_i + f).

    f = 0 is the cross entropy of Dai et al., "Cluster Contrast for Unsupervised Person
    Re-Identification", ACCV 2022. f = 1e-6 is what the authors' code of Ge et al., "Self-paced
    Contrastive Learning with Hybrid Memory", NeurIPS 2020, has: it bounds the loss of an image by
    -log f, and weights its gradient by p / (p + f).

    Args:
        features: u, taken as they are, (B, D).
        prototypes: c, taken as they are, of classes that are not empty, (C, D).
        targets: Classes 0 to C - 1, (B,) int64; or distributions over them, (B, C), of which the
            loss is the mean by their probabilities.
        temperature: t, > 0.
        floor: f, in [0, 1).

    Returns:
        Mean over the batch, a scalar.

    Raises:
        ValueError: The shapes do not fit, an option is out of range, or ``targets`` on the CPU are
            out of range (on a GPU the device's own assertion fails).

    Example:
        >>> rows = torch.eye(2)
        >>> prototype_loss(rows, rows, torch.tensor([0, 1]), temperature=0.5)
        tensor(0.1269)
    """
    _check_rows(prototypes, features)
    if targets.ndim == 2:
        check_shape("targets", targets, (len(features), len(prototypes)))
    else:
        check_labels("targets", targets, len(features), len(prototypes))
    if temperature <= 0:
        raise ValueError(f"temperature must be above 0, got {temperature}; 0.05 is usual")
    if not 0 <= floor < 1:
        raise ValueError(f"floor must be in [0, 1), got {floor}; SpCL uses 1e-6, others 0")
    scores = features @ prototypes.T / temperature  # (B, C)
    if floor == 0:
        return F.cross_entropy(scores, targets)
    # In logarithms, where nothing overflows whatever the temperature.
    log_floor = scores.new_full((), math.log(floor))
    log_sum = torch.logaddexp(scores.logsumexp(dim=1, keepdim=True), log_floor)
    if targets.ndim == 2:
        return -(targets * ((scores - log_sum).exp() + floor).log()).sum(dim=1).mean()
    probability = (scores.gather(1, targets[:, None]) - log_sum).exp()
    return -(probability + floor).log().mean()


def class_means(rows: Tensor, labels: Tensor, num_classes: int) -> Tensor:
    """Average the rows of each class.

    Args:
        rows: Any real rows, (N, D).
        labels: Classes 0 to ``num_classes`` - 1, -1 for rows that are left out, (N,).
        num_classes: C.

    Returns:
        Means, not normalised, zeros for an empty class, (C, D), of the type and on the device of
        ``rows``, through which a gradient flows.

    Raises:
        ValueError: The shapes do not fit, or ``labels`` on the CPU are out of range (on a GPU the
            device's own assertion fails).

    Example:
        >>> rows = torch.tensor([[1.0, 0.0], [3.0, 2.0], [9.0, 9.0]])
        >>> class_means(rows, torch.tensor([1, 1, -1]), 2)
        tensor([[0., 0.],
                [2., 1.]])
    """
    if rows.ndim != 2:
        raise ValueError(f"rows must be (N, D), got shape {tuple(rows.shape)}; give one per image")
    check_labels("labels", labels, len(rows), num_classes, lowest=-1)
    # Row 0 takes what is left out: picking rows by a mask would make the host wait for a GPU.
    places = labels.to(rows.device) + 1
    # Sums in float64 do not show in which order a GPU adds.
    sums = rows.new_zeros(num_classes + 1, rows.shape[1], dtype=torch.float64)
    sums = sums.index_add(0, places, rows.double())[1:]
    sizes = sums.new_zeros(num_classes + 1).index_add(0, places, sums.new_ones(len(rows)))[1:]
    return (sums / sizes.clamp(min=1)[:, None]).to(rows.dtype)


def _check_rows(prototypes: Tensor, features: Tensor) -> None:
    if prototypes.ndim != 2 or features.ndim != 2 or prototypes.shape[1] != features.shape[1]:
        raise ValueError(
            f"features must be (B, D) and prototypes (C, D), got shapes {tuple(features.shape)} "
            f"and {tuple(prototypes.shape)}; give both the same width"
        )
