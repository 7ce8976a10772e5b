"""Clusters as pseudo labels, and their centroids."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import sparse
from scipy.sparse.csgraph import connected_components
from torch import Tensor
from torch.nn import functional as F

from pplr_lightning.functional.cannot_link import (
    attach,
    check_cannot_link,
    groups_of,
    part_cores,
)
from pplr_lightning.functional.checks import check_count, check_neighbors, check_square
from pplr_lightning.functional.jaccard import TOLERANCE, keep_within, mutual_neighbors
from pplr_lightning.functional.sharding import Share


def dbscan(
    distance: sparse.csr_matrix | NDArray[Any] | Tensor,
    *,
    eps: float = 0.5,
    min_samples: int = 4,
    cannot_link: Tensor | None = None,
) -> Tensor:
    """Cluster images by their pairwise distance with DBSCAN.

    Ester et al., "A density-based algorithm for discovering clusters", KDD 1996. Two images are
    neighbours when d <= eps + 1e-6: with k2 = 6 many Jaccard distances are exactly 0.5, the usual
    eps, and rounding shall not decide on them.

    An image with enough neighbours is a core; cores that are neighbours share a cluster; any other
    image joins the first cluster of which it neighbours a core. The labels are scikit-learn's,
    found as the connected components of one sparse graph.

    With ``cannot_link`` no cluster holds two images of a group. Where one would, its cores are
    joined anew, the nearest pair first (Kruskal's order), and a union is refused that would bring
    two of a group together; then the images that are no cores join, the nearest to a core first,
    the first cluster that holds none of their groups. What a chain of neighbours has joined is so
    parted at its weakest links, and not, as by splitting whole clusters afterwards, given up. The
    work is E log E for the E pairs of neighbours in such clusters; no pair is listed but these.

    Args:
        distance: Symmetric and non-negative, (N, N); sparse as `jaccard_distance` returns it
            (what is not stored is far, a stored 0 is near) or dense.
        eps: Largest distance of neighbours, in the unit of ``distance``.
        min_samples: Neighbours that make an image a core of a cluster, the image itself included.
        cannot_link: Images that are known to differ: an image and a group of it in each row, such
            as all that were seen in one frame; an image may be in several groups, (M, 2) int64.

    Returns:
        Labels 0, 1, ... in scikit-learn's order, -1 for outliers, (N,) int64 on the CPU, or on
        the device of a ``distance`` that is a tensor.

    Raises:
        ValueError: ``distance`` is not square, ``eps`` is negative, ``min_samples`` < 1, or
            ``cannot_link`` does not fit.

    Example:
        >>> line = torch.tensor([0.0, 0.1, 0.3, 0.4])
        >>> distance = (line[:, None] - line).abs()
        >>> dbscan(distance, eps=0.2, min_samples=2)
        tensor([0, 0, 0, 0])
        >>> dbscan(distance, eps=0.2, min_samples=2, cannot_link=torch.tensor([[0, 0], [3, 0]]))
        tensor([0, 0, 1, 1])
    """
    check_square(distance)
    if eps < 0:
        raise ValueError(f"eps must not be negative, got {eps}; PPLR uses 0.4 to 0.7")
    check_count("min_samples", min_samples)
    device = distance.device if isinstance(distance, Tensor) else torch.device("cpu")
    if isinstance(distance, Tensor):
        distance = distance.detach().cpu().numpy()
    if not sparse.issparse(distance):
        dense = np.asarray(distance)
        pairs = np.nonzero(dense <= eps + TOLERANCE)
        near = sparse.csr_matrix((dense[pairs], pairs), dense.shape)
    else:
        near = keep_within(sparse.csr_matrix(distance), eps)
    if cannot_link is not None:
        cannot_link = cannot_link.cpu()
        check_cannot_link(cannot_link, near.shape[0])
    return torch.from_numpy(_cluster(near, min_samples, cannot_link)).to(device)


def choose_eps(distance: sparse.csr_matrix | NDArray[Any] | Tensor, *, rho: float) -> float:
    """Choose eps of `dbscan` as the mean of the smallest distances.

    Of all M pairs of images that are not at distance 0, the round(rho M) nearest, as in the code of
    Ge et al., "Mutual Mean-Teaching", ICLR 2020, with rho = 0.0016, and of Chen et al., "Joint
    Generative and Contrastive Learning", CVPR 2021, with 0.002.

    Args:
        distance: Symmetric, (N, N); sparse as `jaccard_distance` returns it with ``max_distance``
            = 1 (what is not stored is at 1, a stored 0 at 0) or dense.
        rho: Share of the pairs, in (0, 1).

    Returns:
        eps, in the unit of ``distance``.

    Raises:
        ValueError: ``distance`` is not square, ``rho`` is out of range, or no pair is left.

    Example:
        >>> line = torch.tensor([0.0, 0.1, 0.3, 0.7])
        >>> round(choose_eps((line[:, None] - line).abs(), rho=0.3), 4)  # of 0.1 and 0.2
        0.15
    """
    check_square(distance)
    if not 0 < rho < 1:
        raise ValueError(f"rho must be in (0, 1), got {rho}; MMT uses 0.0016")
    if isinstance(distance, Tensor):
        distance = distance.detach().cpu().numpy()
    images = distance.shape[0]
    if sparse.issparse(distance):
        near = sparse.triu(distance, k=1).data
    else:
        near = np.asarray(distance)[np.triu_indices(images, 1)]
    near = near.astype(np.float64)
    pairs = images * (images - 1) // 2 - int(np.count_nonzero(near == 0))
    near = near[near != 0]
    count = round(rho * pairs)
    if not count:
        raise ValueError(f"rho={rho} of {pairs} pairs is none; raise rho")
    stored = min(count, len(near))
    smallest = np.sort(np.partition(near, stored - 1)[:stored]) if stored else near
    return float((smallest.sum() + (count - stored)) / count)


def _cluster(
    near: sparse.csr_matrix, min_samples: int, cannot_link: Tensor | None
) -> NDArray[np.int64]:
    """Label the images of a graph whose stored entries are the pairs of neighbours, (N, N)."""
    is_core = np.diff(near.indptr) >= min_samples
    cores = np.flatnonzero(is_core)
    labels = np.full(near.shape[0], -1, dtype=np.int64)
    # Components are numbered by their lowest core, the order in which scikit-learn finds them.
    count, labels[cores] = connected_components(near[cores][:, cores], directed=False)
    others = np.flatnonzero(~is_core)
    if cannot_link is not None and len(cannot_link):
        groups = groups_of(cannot_link)
        labels = part_cores(near, labels, groups)
        count = int(labels.max(initial=-1)) + 1
        bound = np.isin(others, list(groups))
        attach(near, labels, others[bound], groups)
        others = others[~bound]
    # Of the others, those with a core among their neighbours take the lowest of its clusters.
    edges = near[others].tocoo()
    reached = np.where(is_core[edges.col], labels[edges.col], count)
    lowest = np.full(len(others), count)
    np.minimum.at(lowest, edges.row, reached)
    labels[others] = np.where(lowest < count, lowest, -1)
    return labels


def neighbor_components(neighbors: Tensor, *, k: int) -> Tensor:
    """Cluster images that are linked by mutual nearest neighbours.

    Labels are the connected components of the graph that joins i and j where each is among the k
    nearest of the other. Nothing bounds their size: from k of 3 or 4 on, chains of links tend to
    join most images into one giant component. Look at the share of the largest before training.

    Args:
        neighbors: Result of `nearest_neighbors`, the image itself included, (N, >= k + 1).
        k: Nearest images that are compared, the image itself **not** counted, >= 1.

    Returns:
        Labels 0, 1, ... in the order of each component's lowest image, -1 for an image that is
        linked to none, (N,) int64, on the device of ``neighbors``.

    Raises:
        ValueError: ``k`` < 1, or ``neighbors`` do not fit.

    Example:
        >>> neighbors = torch.tensor([[0, 1], [1, 0], [2, 1], [3, 4], [4, 3]])
        >>> neighbor_components(neighbors, k=1)
        tensor([ 0,  0, -1,  1,  1])
    """
    check_count("k", k)
    images = len(neighbors)
    check_neighbors(neighbors, images, k + 1)
    lists, own = neighbors.cpu(), torch.arange(images)[:, None]
    # The last takes the place of the image itself, which behind many duplicates is not there.
    others = torch.where(lists[:, :k] == own, lists[:, k : k + 1], lists[:, :k])
    mutual = mutual_neighbors(others.int().contiguous().numpy(), k, range(images))
    rows, columns = np.nonzero(mutual >= 0)
    links = (np.ones(len(rows), bool), (rows, mutual[rows, columns]))
    # Components are numbered by their lowest image.
    graph = sparse.csr_matrix(links, (images, images))
    _, component = connected_components(graph, directed=False)
    is_linked = np.bincount(component) > 1
    numbers = np.where(is_linked, np.cumsum(is_linked) - 1, -1)
    return torch.from_numpy(numbers[component]).to(neighbors.device)


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
    sizes = labels[labels >= 0].bincount()
    empty = (sizes == 0).nonzero()
    if len(empty):
        raise ValueError(
            f"labels must be 0 to K - 1 without gaps, got none of label {int(empty[0])} below "
            f"{len(sizes) - 1}; renumber them with labels.unique(return_inverse=True)"
        )
    return centroid_rows(features, labels, len(sizes), Share(len(features)))


def centroid_rows(features: Tensor, labels: Tensor, clusters: int, share: Share) -> Tensor:
    """Compute `cluster_centroids` of all processes' images, of the same arguments as `sum_rows`."""
    # They need no division by the size of the cluster: the length is normalised.
    sums = sum_rows(features, labels, clusters, share)
    return F.normalize(sums, dim=1).to(features.dtype)


def sum_rows(features: Tensor, labels: Tensor, clusters: int, share: Share) -> Tensor:
    """Add the features of each cluster over all processes, (K, D) float64.

    Args:
        features: This process's rows, (n, D); on the CPU where there are several processes.
        labels: Labels of these rows, -1 for outliers, on the device of ``features``, (n,).
        clusters: Clusters of all processes, K.
        share: The rows of this process among the N.
    """
    clustered = labels >= 0
    # Sums in float64 do not show in which order a GPU, or the processes, add.
    sums = features.new_zeros(clusters, features.shape[1], dtype=torch.float64)
    sums.index_add_(0, labels[clustered], features[clustered].double())
    return share.sum(sums)


def camera_pairs(labels: Tensor, cameras: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Number every pair of a cluster and a camera in which it was seen.

    Args:
        labels: Clusters, -1 for outliers, (N,).
        cameras: Cameras of the same images, (N,).

    Returns:
        Pair of each image, 0 to M - 1 in the order of clusters, then cameras, -1 for outliers,
        (N,); cluster of each pair, (M,); camera of each pair, (M,).
    """
    clustered = labels >= 0
    seen = torch.stack([labels, cameras.to(labels)])[:, clustered]
    pairs, numbers = seen.unique(dim=1, return_inverse=True)
    pair_of = torch.full_like(labels, -1)
    pair_of[clustered] = numbers
    return pair_of, pairs[0], pairs[1]
