"""Several rows for each class, each the feature of one image, as DCMIP has them."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from pplr_lightning.functional.checks import check_labels


def multi_instance_loss(
    features: Tensor, instances: Tensor, targets: Tensor, *, temperature: float
) -> Tensor:
    """Tell every image's class from the others by the least favourable of their instances.

    With v_ks the s-th instance of class k, m_i = min_s u_i · v_ys for the own class y and
    M_ik = max_s u_i · v_ks for the others,

        loss = mean_i of -log(exp(m_i / t) / (exp(m_i / t) + sum_{k != y} exp(M_ik / t)))

    (Zou et al., "Discrepant and Multi-instance Proxies for Unsupervised Person Re-identification",
    ICCV 2023).

    Args:
        features: u, L2-normalised, (B, D).
        instances: v, L2-normalised, (S, C, D).
        targets: Classes 0 to C - 1, (B,).
        temperature: t, above 0.

    Returns:
        A scalar.

    Raises:
        ValueError: The shapes do not fit, ``targets`` on the CPU are out of range, or
            ``temperature`` is not above 0.

    Example:
        >>> two_each = torch.stack([torch.eye(2), torch.eye(2)])
        >>> multi_instance_loss(torch.eye(2), two_each, torch.tensor([0, 1]), temperature=1.0)
        tensor(0.3133)
    """
    _check(features, instances, targets)
    if not temperature > 0:
        raise ValueError(f"temperature must be above 0, got {temperature}")
    scores = features @ instances.flatten(0, 1).T / temperature
    scores = scores.unflatten(1, instances.shape[:2])  # (B, S, C)
    classes = torch.arange(instances.shape[1], device=features.device)
    is_own = targets.to(features.device)[:, None] == classes
    logits = torch.where(is_own, scores.amin(dim=1), scores.amax(dim=1))
    return F.cross_entropy(logits, targets.to(features.device))


@torch.no_grad()
def replace_instances(instances: Tensor, features: Tensor, targets: Tensor) -> Tensor:
    """Put the images of a batch in the place of their classes' instances.

    Of K images of a class the s-th instance becomes the one of number s mod K in the batch. What is
    done with instances asks for no order, so that nothing is drawn.

    Args:
        instances: (S, C, D). They are not changed.
        features: L2-normalised, (B, D).
        targets: Classes 0 to C - 1, (B,).

    Returns:
        New instances, (S, C, D): those of classes that are not in the batch equal the old ones.

    Raises:
        ValueError: The shapes do not fit, or ``targets`` on the CPU are out of range.

    Example:
        >>> old = torch.zeros(3, 2, 1)
        >>> replace_instances(old, torch.tensor([[1.0], [-1.0]]), torch.tensor([1, 1]))[:, 1, 0]
        tensor([ 1., -1.,  1.])
    """
    _check(features, instances, targets)
    targets = targets.to(instances.device)
    together = targets[:, None] == targets  # (B, B)
    number = together.tril(-1).sum(dim=1)  # of the image within its class
    slots = torch.arange(len(instances), device=instances.device)[:, None]
    wanted = slots % together.sum(dim=1)  # number that each image's class puts there, (S, B)
    # Not by a loop over the classes of the batch: the host would wait for a GPU to name them.
    image = (together & (number == wanted[..., None])).int().argmax(dim=2)  # (S, B)
    return instances.index_copy(1, targets, features.to(instances)[image])


def _check(features: Tensor, instances: Tensor, targets: Tensor) -> None:
    if features.ndim != 2 or instances.ndim != 3 or features.shape[1] != instances.shape[2]:
        raise ValueError(
            f"features must be (B, D) and instances (S, C, D), got shapes {tuple(features.shape)} "
            f"and {tuple(instances.shape)}; give both the same width"
        )
    check_labels("targets", targets, len(features), instances.shape[1])
