"""Batch-hard triplets: the farthest image of the same class against the nearest of another."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from pplr_lightning.functional.checks import check_shape


def euclidean_distances(embeddings: Tensor) -> Tensor:
    """Return the Euclidean distances of all pairs of embeddings (B, D), (B, B)."""
    # cdist's shortcut through dot products would lose the small distances.
    return torch.cdist(embeddings, embeddings, compute_mode="donot_use_mm_for_euclid_dist")


def softmax_triplet_loss(embeddings: Tensor, targets: Tensor) -> Tensor:
    """Batch-hard triplet loss in its softmax form, without a margin.

    mean_i of -log(e^n / (e^n + e^p)) = softplus(p - n), where p is the Euclidean distance of image
    i to the farthest image of its cluster and n to the nearest of another (Hermans et al., "In
    Defense of the Triplet Loss", 2017; softmax form as in the authors' code).

    Args:
        embeddings: Not normalised, (B, D).
        targets: Clusters, (B,).

    Returns:
        Mean over the batch, a scalar; an image without others of its cluster has p = 0, one
        without another cluster in the batch adds 0.

    Raises:
        ValueError: The shapes do not fit.
    """
    positive, negative = _hardest_distances(embeddings, targets)
    return F.softplus(positive - negative).mean()


def margin_triplet_loss(embeddings: Tensor, targets: Tensor, *, margin: float) -> Tensor:
    """Batch-hard triplet loss with a margin (Hermans et al., 2017, eq. 5).

    mean_i of max(0, p - n + margin), with p and n as of `softmax_triplet_loss`.

    Args:
        embeddings: Not normalised, (B, D).
        targets: Clusters, (B,).
        margin: By which n has to exceed p, finite and >= 0.

    Returns:
        Mean over the batch, a scalar; an image without another cluster in the batch adds 0.

    Raises:
        ValueError: The shapes do not fit, or ``margin`` is out of range.

    Example:
        >>> line = torch.tensor([[0.0], [1.0], [3.0], [3.5]])
        >>> margin_triplet_loss(line, torch.tensor([0, 0, 1, 1]), margin=1.0)
        tensor(0.)
    """
    if not 0 <= margin < math.inf:
        raise ValueError(f"margin must be finite and at least 0, got {margin}; 0.3 is usual")
    positive, negative = _hardest_distances(embeddings, targets)
    return F.relu(positive - negative + margin).mean()


def soft_triplet_loss(embeddings: Tensor, teacher_embeddings: Tensor, targets: Tensor) -> Tensor:
    """Tell a student how sure a teacher is of the student's hardest triplets (MMT, eq. 8).

    With p and n the distances of image i to the farthest image of its cluster and to the nearest of
    another, both chosen by the student, and p', n' the teacher's distances of the same two pairs,

        loss_i = -s' log s - (1 - s') log(1 - s),    s = e^p / (e^p + e^n), s' likewise

    (Ge et al., "Mutual Mean-Teaching", ICLR 2020). `softmax_triplet_loss` is s' = 0.

    Args:
        embeddings: Of the student, not normalised, (B, D).
        teacher_embeddings: Of the teacher, a target without a gradient, (B, D').
        targets: Clusters, (B,).

    Returns:
        Mean over the batch, a scalar; an image without another cluster in the batch adds 0.

    Raises:
        ValueError: The shapes do not fit.

    Example:
        >>> line = torch.tensor([[0.0], [1.0], [3.0], [3.5]])
        >>> soft_triplet_loss(line, line, torch.tensor([0, 0, 1, 1]))
        tensor(0.4470)
    """
    _check_rows(embeddings, targets)
    _check_rows(teacher_embeddings, targets, "teacher_embeddings")
    distance = euclidean_distances(embeddings)
    with torch.no_grad():
        same = targets[:, None] == targets
        farthest = distance.masked_fill(~same, -1).argmax(dim=1, keepdim=True)
        nearest = distance.masked_fill(same, torch.inf).argmin(dim=1, keepdim=True)
        told = euclidean_distances(teacher_embeddings)
        share = (told.gather(1, farthest) - told.gather(1, nearest)).sigmoid()
    difference = distance.gather(1, farthest) - distance.gather(1, nearest)
    losses = F.binary_cross_entropy_with_logits(
        difference, share.to(difference.dtype), reduction="none"
    )
    return losses.masked_fill(same.all(dim=1, keepdim=True), 0).mean()


def _hardest_distances(embeddings: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Return each image's distance to its farthest positive and to its nearest negative, (B,)."""
    _check_rows(embeddings, targets)
    distance = euclidean_distances(embeddings)
    same = targets[:, None] == targets
    return (
        distance.masked_fill(~same, 0).amax(dim=1),
        distance.masked_fill(same, torch.inf).amin(dim=1),
    )


def _check_rows(embeddings: Tensor, targets: Tensor, name: str = "embeddings") -> None:
    if embeddings.ndim != 2:
        raise ValueError(
            f"{name} must be (B, D), got shape {tuple(embeddings.shape)}; give one row per image"
        )
    check_shape("targets", targets, (len(embeddings),))
