"""Clusters as pseudo labels, and their centroids."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import sparse
from sklearn.cluster import DBSCAN
from sklearn.exceptions import EfficiencyWarning
from torch import Tensor
from torch.nn import functional as F

from pplr_lightning.functional.jaccard import TOLERANCE, keep_within


def dbscan(
    distance: sparse.csr_matrix | NDArray[Any] | Tensor,
    *,
    eps: float = 0.5,
    min_samples: int = 4,
) -> Tensor:
    """Cluster images by their pairwise distance with scikit-learn's DBSCAN.

    Ester et al., "A density-based algorithm for discovering clusters", KDD 1996. Two images are
    neighbours when d <= eps + 1e-6: with k2 = 6 many Jaccard distances are exactly 0.5, the usual
    eps, and rounding shall not decide on them.

    Args:
        distance: Symmetric and non-negative, (N, N); sparse as `jaccard_distance` returns it
            (what is not stored is far, a stored 0 is near) or dense.
        eps: Largest distance of neighbours, in the unit of ``distance``.
        min_samples: Neighbours that make an image a core of a cluster, the image itself included.

    Returns:
        Labels 0, 1, ... in scikit-learn's order, -1 for outliers, (N,) int64 on the CPU, or on
        the device of a ``distance`` that is a tensor.

    Raises:
        ValueError: ``distance`` is not square, ``eps`` is negative, or ``min_samples`` < 1.
    """
    if distance.ndim != 2 or distance.shape[0] != distance.shape[1]:
        raise ValueError(
            f"distance must be square, (N, N), got shape {tuple(distance.shape)}; "
            "pass the result of jaccard_distance"
        )
    if eps < 0:
        raise ValueError(f"eps must not be negative, got {eps}; PPLR uses 0.4 to 0.7")
    if min_samples < 1:
        raise ValueError(f"min_samples must be at least 1, got {min_samples}; PPLR uses 4")
    device = distance.device if isinstance(distance, Tensor) else torch.device("cpu")
    if isinstance(distance, Tensor):
        distance = distance.detach().cpu().numpy()
    elif sparse.issparse(distance):
        distance = keep_within(sparse.csr_matrix(distance), eps)  # the rest is only memory
    model = DBSCAN(eps=eps + TOLERANCE, min_samples=min_samples, metric="precomputed")
    with warnings.catch_warnings():
        # Older releases warn that rows are not sorted by distance before they sort them.
        warnings.simplefilter("ignore", EfficiencyWarning)
        labels: NDArray[np.int64] = model.fit(distance).labels_
    return torch.from_numpy(labels).long().to(device)


@torch.no_grad()
def cluster_centroids(features: Tensor, labels: Tensor) -> Tensor:
    """Average the features of each cluster and L2-normalise the mean.

    Args:
        features: Any real rows, (N, D).
        labels: Clusters 0 to K - 1 without gaps, -1 for outliers, which are left out, (N,).

    Returns:
        Centroids, (K, D), of the type and on the device of ``features``; (0, D) without clusters.

    Raises:
        ValueError: The shapes do not fit, or a cluster below the highest label is empty.
    """
    if features.ndim != 2 or labels.shape != features.shape[:1]:
        raise ValueError(
            f"features must be (N, D) and labels (N,), got shapes {tuple(features.shape)} and "
            f"{tuple(labels.shape)}; give one label per row"
        )
    labels = labels.to(features.device)
    clustered = labels >= 0
    sizes = labels[clustered].bincount()
    empty = (sizes == 0).nonzero()
    if len(empty):
        raise ValueError(
            f"labels must be 0 to K - 1 without gaps, got none of label {int(empty[0])} below "
            f"{len(sizes) - 1}; renumber them with labels.unique(return_inverse=True)"
        )
    # Sums in float64 do not show in which order a GPU adds.
    sums = features.new_zeros(len(sizes), features.shape[1], dtype=torch.float64)
    sums.index_add_(0, labels[clustered], features[clustered].double())
    return F.normalize(sums / sizes[:, None], dim=1).to(features.dtype)
