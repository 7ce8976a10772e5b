"""Average linkage on re-ranked distances within and across cameras, as IICS labels.

All of it is of whole (N, N) matrices, as published: 8 N² bytes each, some three at a time.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from scipy.cluster.hierarchy import fcluster, linkage
from scipy.spatial.distance import squareform
from torch import Tensor

from pplr_lightning.functional.checks import check_count, check_fraction, check_shape, check_square
from pplr_lightning.functional.jaccard import (
    TOLERANCE,
    average_nearest,
    expand_reciprocal,
    minima_sums,
    normalize_exponentials,
)


def score_similarity(scores: Tensor) -> Tensor:
    """Tell how alike the classifiers of all cameras see two images (IICS, eq. 5).

        J_ij = sum_k min(s_ik, s_jk) / sum_k max(s_ik, s_jk)

    (Xuan & Zhang, "Intra-Inter Camera Similarity for Unsupervised Person Re-Identification", CVPR
    2021.)

    Args:
        scores: Each camera's classifier gives probabilities of its own classes; side by side,
            (N, S), rows of equal sums.

    Returns:
        In [0, 1], (N, N).

    Raises:
        ValueError: ``scores`` are not 2-D.

    Example:
        >>> score_similarity(torch.tensor([[1.0, 0.0], [0.5, 0.5]]))
        tensor([[1.0000, 0.3333],
                [0.3333, 1.0000]])
    """
    if scores.ndim != 2 or not scores.numel():
        raise ValueError(f"scores must be (N, S), got shape {tuple(scores.shape)}")
    total = scores.sum(dim=1).mean()
    minima = total - torch.cdist(scores, scores, p=1) / 2
    return minima / (2 * total - minima)


def camera_distance(
    features: Tensor, cameras: Tensor, scores: Tensor, *, mix_rate: float
) -> Tensor:
    """Bring images of different cameras nearer whose scores are alike (IICS, eq. 6).

        d_ij = 1 - u_i · u_j - mu [c_i != c_j] J_ij

    Args:
        features: u, L2-normalised rows, (N, D).
        cameras: c, (N,).
        scores: As for `score_similarity`, (N, S).
        mix_rate: mu, 0 or above.

    Returns:
        (N, N).

    Raises:
        ValueError: The shapes do not fit.

    Example:
        >>> eye, scores = torch.eye(2), torch.ones(2, 1)
        >>> camera_distance(eye, torch.tensor([0, 1]), scores, mix_rate=0.02)
        tensor([[0.0000, 0.9800],
                [0.9800, 0.0000]])
    """
    check_shape("cameras", cameras, (len(features),))
    check_shape("scores", scores, (len(features), *scores.shape[1:]))
    bonus = mix_rate * score_similarity(scores)
    return 1 - features @ features.T - bonus.masked_fill_(cameras[:, None] == cameras, 0)


def mix_rate(epoch: int, epochs: int, *, start: float = 0.02, power: float = 0.6) -> float:
    """Return start (1 - epoch / epochs)^power, IICS's mu in an epoch counted from 0.

    Example:
        >>> [round(mix_rate(epoch, 40), 4) for epoch in (0, 20, 40)]
        [0.02, 0.0132, 0.0]
    """
    return start * max(1 - epoch / epochs, 0.0) ** power


def reciprocal_distance(
    distance: Tensor, *, k1: int = 20, k2: int = 6, lambda_: float = 0.3
) -> Tensor:
    """Re-rank all images among each other by the neighbours that they share, as IICS does.

        r_ij = (1 - lambda) Jaccard_ij + lambda o_ij

    with o the distances of each image i scaled to [0, 1]. As these scales differ, r is **not
    symmetric**. The authors add up in 16 bits; this does not. Unlike `rerank_distance` it begins
    with distances, and squares none.

    Args:
        distance: Symmetric, (N, N).
        k1: Neighbours that are tested for reciprocity, the image itself **not** included.
        k2: Neighbours whose encodings are averaged, the image itself included.
        lambda_: Weight of the original distance, in [0, 1].

    Returns:
        In [0, 1], on the CPU, (N, N) float64.

    Raises:
        ValueError: ``distance`` is not square, or an option is out of range for N images.

    Example:
        >>> line = torch.arange(6.0)
        >>> float(reciprocal_distance((line[:, None] - line).abs(), k1=2, k2=1)[0, 5])
        1.0
    """
    check_square(distance)
    images = len(distance)
    check_count("k1", k1, images - 1)
    check_count("k2", k2, images)
    check_fraction("lambda_", lambda_, "the paper uses 0.3")
    rows = distance.detach().cpu().double().numpy()
    low, high = rows.min(axis=1, keepdims=True), rows.max(axis=1, keepdims=True)
    scaled = (rows - low) / np.maximum(high - low, 1e-12)
    columns = max(k1 + 1, k2)
    lists = np.argsort(scaled, axis=1, kind="stable")[:, :columns].astype(np.int32)
    every = range(images)
    encoding = expand_reciprocal(np.ascontiguousarray(lists[:, : k1 + 1]), round(k1 / 2) + 1, every)
    own = np.repeat(np.arange(images), np.diff(encoding.indptr))
    encoding.data[:] = -scaled[own, encoding.indices]
    normalize_exponentials(encoding)
    average = average_nearest(encoding, lists, k2, every)
    shared = minima_sums(average, average)
    scaled *= lambda_
    scaled += 1 - lambda_
    own = np.repeat(np.arange(images), np.diff(shared.indptr))
    scaled[own, shared.indices] -= (1 - lambda_) * shared.data / (2 - shared.data)
    scaled[scaled < TOLERANCE] = 0  # what rounding leaves of 1 - 1
    return torch.from_numpy(scaled)


def average_linkage(distance: Tensor, *, share: float) -> tuple[Tensor, float]:
    """Merge the two clusters of least mean distance until that reaches a threshold.

    The threshold is the distance at place round(share · n) of the n pairs of non-zero distance, in
    ascending order. Of a matrix that is not symmetric the upper triangle counts, as in the authors'
    code. There are no outliers; an image far from all others is a cluster of one.

    Args:
        distance: (N, N).
        share: In (0, 1).

    Returns:
        Clusters 0 to C - 1 in the order of their first images, (N,) int64, and the threshold.

    Raises:
        ValueError: ``distance`` is not square, or ``share`` out of range.

    Example:
        >>> line = torch.tensor([0.0, 0.1, 5.0, 5.1, 9.0])
        >>> average_linkage((line[:, None] - line).abs(), share=0.2)[0].tolist()
        [0, 0, 1, 1, 2]
    """
    check_square(distance)
    if not 0 < share < 1:
        raise ValueError(f"share={share}: must lie in (0, 1)")
    if len(distance) < 2:
        return torch.zeros(len(distance), dtype=torch.int64), 0.0
    rows = distance.detach().cpu().double().numpy()
    pairs = squareform(rows, checks=False)  # the upper triangle
    others = pairs[pairs != 0]
    place = min(round(share * len(others)), len(others) - 1)
    threshold = float(np.partition(others, place)[place]) if len(others) else 0.0
    del others
    # Clusters at the threshold itself are not merged.
    below = np.nextafter(threshold, -math.inf)
    labels = fcluster(linkage(pairs, method="average"), below, criterion="distance")
    _, first, number = np.unique(labels, return_index=True, return_inverse=True)
    order = np.argsort(np.argsort(first))
    return torch.from_numpy(order[number.reshape(-1)].astype(np.int64)), threshold
