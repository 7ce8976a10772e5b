"""Which clusters hold when they are formed more tightly, or more loosely, or anew."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import sparse
from torch import Tensor

from pplr_lightning.functional.checks import check_fraction, check_shape

SHARE_KEPT = 0.9  # of the clusters, by independence, when the threshold is made


def keep_reliable(
    labels: Tensor, tight: Tensor, loose: Tensor, *, threshold: float | None = None
) -> tuple[Tensor, float]:
    """Keep images in clusters that a stricter and a looser clustering confirm.

    Ge et al., "Self-paced Contrastive Learning with Hybrid Memory", NeurIPS 2020. With I(i) the
    images of the class of image i, an outlier's being the image alone, I_t and I_l the same in the
    tight and in the loose labels, and iou the intersection over the union of two sets,

        c_i = 1 - iou(I(i), I_t(i)),    d_i = 1 - iou(I(i), I_l(i)),

    0 at best (compactness and independence of the paper are 1 - these). An image stays in its class
    where the least d of the class is at most the threshold, and its own c is the least of the
    class; any other becomes a class of one. As in the authors' code, the threshold is made once,
    such that about nine in ten clusters of two images and more pass, and then kept.

    Args:
        labels: Clusters, -1 for outliers, (N,).
        tight: The same under a stricter criterion, such as a smaller eps, (N,).
        loose: The same under a looser one, (N,).
        threshold: Largest d of a class that is kept, in [0, 1]; None makes it from these labels.

    Returns:
        Classes 0 to K - 1 without gaps, clusters first, (N,) int64 on the device of ``labels``,
        and the threshold in force.

    Raises:
        ValueError: The shapes do not fit, a label is below -1, ``threshold`` is out of range, or
            there is no cluster of which to make it.

    Example:
        >>> labels = torch.tensor([0, 0, 0, 1, 1, -1])
        >>> tight = torch.tensor([0, 0, -1, 1, 1, -1])  # image 2 is on the edge of its cluster
        >>> keep_reliable(labels, tight, labels)
        (tensor([0, 0, 3, 1, 1, 2]), 0.0)
    """
    for name, other in (("tight", tight), ("loose", loose)):
        check_shape(name, other, tuple(labels.shape))
    own, inner, outer = map(_number_outliers, (labels, tight, loose))
    num_classes = int(own.max(initial=-1)) + 1
    apart, crossed = (1 - _overlap(own, other)[own, other].A1 for other in (inner, outer))
    least_apart, least_crossed = (_least(one, own, num_classes) for one in (apart, crossed))
    if threshold is None:
        clusters = np.bincount(own, minlength=num_classes) > 1
        threshold = _make_threshold(least_crossed[clusters])
    check_fraction("threshold", threshold, "it is the one of the first epoch")
    # Equal shares are equal to the last bit, so that ties stay together.
    kept = (least_crossed[own] <= threshold) & (apart <= least_apart[own])
    found = np.empty_like(own)
    numbers, found[kept] = np.unique(own[kept], return_inverse=True)
    found[~kept] = len(numbers) + np.arange(np.count_nonzero(~kept))
    return torch.from_numpy(found).to(labels.device), threshold


def cluster_overlap(previous: Tensor, current: Tensor) -> sparse.csr_matrix:
    """Compare each cluster of one labelling with each of another by the images that they share.

        J_ab = iou(A_a, B_b),

    the intersection over the union of their images, as the consensus of Zhang et al., "Refining
    Pseudo Labels with Clustering Consensus over Generations for Unsupervised Object
    Re-identification", CVPR 2021, and the reliability of `keep_reliable` have it. Only pairs that
    share an image are stored, at most N.

    Args:
        previous: Clusters 0 to C' - 1, -1 for images of none, (N,).
        current: Clusters 0 to C - 1 of the same images, likewise, (N,).

    Returns:
        J, float64, (C', C).

    Raises:
        ValueError: The shapes do not fit, or a label is below -1.

    Example:
        >>> cluster_overlap(torch.tensor([0, 0, 1, -1]), torch.tensor([1, 0, 0, 0])).toarray()
        array([[0.25      , 0.5       ],
               [0.33333333, 0.        ]])
    """
    check_shape("current", current, tuple(previous.shape))
    return _overlap(_numbers(previous), _numbers(current))


def _overlap(previous: NDArray[np.int64], current: NDArray[np.int64]) -> sparse.csr_matrix:
    before, after = _members(previous), _members(current)
    shared = (before.T @ after).tocoo()
    sizes, others = (np.diff(one.tocsc().indptr) for one in (before, after))
    union = sizes[shared.row] + others[shared.col] - shared.data
    return sparse.csr_matrix((shared.data / union, (shared.row, shared.col)), shared.shape)


def _members(numbers: NDArray[np.int64]) -> sparse.csr_matrix:
    """Mark the cluster of each image, (N, C)."""
    images = np.flatnonzero(numbers >= 0)
    entries = (np.ones(len(images), np.int64), (images, numbers[images]))
    return sparse.csr_matrix(entries, (len(numbers), int(numbers.max(initial=-1)) + 1))


def _numbers(labels: Tensor) -> NDArray[np.int64]:
    numbers = labels.cpu().numpy().astype(np.int64)
    if numbers.ndim != 1 or numbers.min(initial=0) < -1:
        raise ValueError(
            f"labels must be (N,) and -1 or above, got shape {numbers.shape} from "
            f"{numbers.min(initial=0)}; give one per image, -1 for none"
        )
    return numbers


def _number_outliers(labels: Tensor) -> NDArray[np.int64]:
    """Make each image without a class one of its own, (N,)."""
    numbers = _numbers(labels)
    alone = numbers < 0
    return np.where(alone, numbers.max(initial=-1) + alone.cumsum(), numbers)


def _least(
    values: NDArray[np.float64], labels: NDArray[np.int64], num_classes: int
) -> NDArray[Any]:
    """Return the least value of each class, infinity for an empty one, (C,)."""
    least = np.full(num_classes, np.inf)
    np.minimum.at(least, labels, values)
    return least


def _make_threshold(values: NDArray[np.float64]) -> float:
    if not len(values):
        raise ValueError(
            "no cluster of two images or more, of which to make the threshold: raise eps or lower "
            "min_samples, or start from better features"
        )
    # Python rounds half to even, as NumPy does in the authors' code.
    return float(np.sort(values)[min(len(values) - 1, round(SHARE_KEPT * len(values)))])
