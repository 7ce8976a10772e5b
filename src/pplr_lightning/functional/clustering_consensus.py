"""Labels of one clustering carried over into the next, softly."""

from __future__ import annotations

import numpy as np
import torch
from scipy import sparse
from torch import Tensor

from pplr_lightning.functional.checks import check_fraction, check_labels
from pplr_lightning.functional.reliability import cluster_overlap


def cluster_mapping(previous: Tensor, current: Tensor) -> sparse.csr_matrix:
    """Say which clusters of now each cluster of before has become.

        Q_ab = J_ab / sum_b J_ab,    J = cluster_overlap(previous, current)

    (Zhang et al., "Refining Pseudo Labels with Clustering Consensus over Generations", CVPR 2021).

    Args:
        previous: Clusters 0 to C' - 1, -1 for images of none, (N,).
        current: Clusters 0 to C - 1 of the same images, likewise, (N,).

    Returns:
        Q, float64, (C', C): rows of sum 1, or 0 where no image of the cluster is in any now.

    Raises:
        ValueError: The shapes do not fit, or a label is below -1.

    Example:
        >>> cluster_mapping(torch.tensor([0, 0, 1, -1]), torch.tensor([1, 0, 0, 0])).toarray()
        array([[0.33333333, 0.66666667],
               [1.        , 0.        ]])
    """
    overlap = cluster_overlap(previous, current)
    overlap.data /= np.repeat(overlap.sum(axis=1).A1, np.diff(overlap.indptr))
    return overlap


@torch.no_grad()
def propagate_labels(
    features: Tensor,
    centroids: Tensor,
    previous: Tensor,
    mapping: sparse.csr_matrix,
    *,
    scale: float = 30.0,
    alpha: float = 0.9,
    beta: float = 0.0,
) -> Tensor:
    """Carry what images were before over into the clusters of now.

    With p_i = softmax(s u_i · c) over the clusters of before and y_i the one that i was in,

        p'_i = alpha onehot(y_i) + (1 - alpha) p_i,
        soft_i = (1 - beta) p'_i Q + beta Q_{y_i}

    (Zhang et al., CVPR 2021, as in the authors' code).

    Args:
        features: u, of now, L2-normalised, of any images, (n, D).
        centroids: c, L2-normalised means of the clusters of before, (C', D).
        previous: y of these images, -1 for those of none, which have p alone, (n,).
        mapping: Q, as of `cluster_mapping`, (C', C).
        scale: s, above 0; the inverse of a temperature.
        alpha: Share of the cluster of before in what an image was, in [0, 1].
        beta: Share of what became of that cluster alone, in [0, 1].

    Returns:
        Of each image a distribution over the clusters of now, less what was of clusters of which
        nothing is left, (n, C), of the type of ``features``, on the CPU.

    Raises:
        ValueError: The shapes do not fit, or an option is out of range.

    Example:
        >>> mapping = cluster_mapping(torch.tensor([0, 0, 1, 1]), torch.tensor([1, 1, 1, 0]))
        >>> soft = propagate_labels(torch.eye(2), torch.eye(2), torch.tensor([0, 1]), mapping)
        >>> soft.round(decimals=4)
        tensor([[0.0000, 1.0000],
                [0.6667, 0.3333]])
    """
    if features.ndim != 2 or centroids.ndim != 2 or features.shape[1] != centroids.shape[1]:
        raise ValueError(
            f"features must be (n, D) and centroids (C', D), got shapes {tuple(features.shape)} "
            f"and {tuple(centroids.shape)}; give both the same width"
        )
    if mapping.shape[0] != len(centroids):
        raise ValueError(
            f"mapping must have a row for each of the {len(centroids)} centroids, got "
            f"{mapping.shape[0]}; make it of the labels that the centroids are of"
        )
    previous = previous.cpu()
    check_labels("previous", previous, len(features), len(centroids), lowest=-1)
    if not scale > 0:
        raise ValueError(f"scale must be above 0, got {scale}; RLCC uses 30")
    check_fraction("alpha", alpha, "RLCC uses 0.9")
    check_fraction("beta", beta, "RLCC uses 0")
    was = (scale * features @ centroids.to(features).T).softmax(dim=1).cpu()  # (n, C')
    share = (beta + (1 - beta) * alpha) * (previous >= 0).to(was.dtype)[:, None]
    was *= 1 - share
    was.scatter_add_(1, previous.clamp(min=0)[:, None], share)
    mapped = mapping.astype(was.numpy().dtype).T @ was.numpy().T
    return torch.from_numpy(np.ascontiguousarray(mapped.T))
