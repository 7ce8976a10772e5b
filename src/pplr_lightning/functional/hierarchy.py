"""Clusters of varying density as pseudo labels."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import sparse
from scipy.sparse.csgraph import connected_components, minimum_spanning_tree
from torch import Tensor

from pplr_lightning.functional.checks import check_count, check_square

FARTHEST = 1.0  # distance of pairs that are not stored
NEAREST = 1e-30  # stands for 0, which scipy takes for no edge


def hdbscan(
    distance: sparse.csr_matrix,
    *,
    min_cluster_size: int = 4,
    min_samples: int | None = None,
    max_cluster_size: int | None = None,
    cluster_selection_epsilon: float = 0.0,
) -> Tensor:
    """Cluster images by their pairwise distance with HDBSCAN, for which no eps need be known.

    Campello et al., "Density-Based Clustering Based on Hierarchical Density Estimates", PAKDD 2013.
    Two images are reachable at max(core_i, core_j, d_ij), where core_i is the distance to i's
    ``min_samples``-th nearest; of the tree of single-linkage clusters at all distances those of
    most stable density are chosen.

    scikit-learn does so; it gets the minimum spanning tree instead of N x N distances. Images that
    are reachable at distance 1 alone, the largest there is, are outliers here: scikit-learn joins
    them in an order that means nothing, to each other or to any cluster. As there, the root of the
    tree is no cluster: images that do not fall apart into two parts are all outliers. With more
    than two ``min_samples`` many pairs are reachable at equal distances, so that the order of the
    images decides to which of two clusters some belong.

    Args:
        distance: Symmetric, in [0, 1], (N, N); sparse as ``jaccard_distance(max_distance=1.0)``
            returns it (what is not stored is at distance 1, a stored 0 is near).
        min_cluster_size: Fewest images of a cluster, >= 2.
        min_samples: Images within the core distance, the image itself included, >= 1; None takes
            ``min_cluster_size``.
        max_cluster_size: Most images of a cluster; None sets no limit.
        cluster_selection_epsilon: Clusters that part at a smaller distance stay one, in [0, 1).
            Up to 1.9.1 scikit-learn fails at it with NumPy 2.4 and newer.

    Returns:
        Labels 0, 1, ..., -1 for outliers, (N,) int64 on the CPU.

    Raises:
        ValueError: ``distance`` is not sparse, not square or not in [0, 1], an option is out of
            range, or scikit-learn cannot do ``cluster_selection_epsilon`` here.

    Example:
        >>> gap = np.abs(np.subtract.outer(*[np.array([0, 1, 2, 10, 11, 12, 50])] * 2)) / 20
        >>> near = gap < 1
        >>> distance = sparse.csr_matrix((gap[near], near.nonzero()), gap.shape)
        >>> hdbscan(distance, min_cluster_size=3, min_samples=2)
        tensor([ 0,  0,  0,  1,  1,  1, -1])
    """
    min_samples = min_cluster_size if min_samples is None else min_samples
    check_count("min_cluster_size", min_cluster_size, least=2)
    check_count("min_samples", min_samples)
    if max_cluster_size is not None and max_cluster_size < min_cluster_size:
        raise ValueError(
            f"max_cluster_size must be at least min_cluster_size, {min_cluster_size}, got "
            f"{max_cluster_size}; raise it, or pass None for no limit"
        )
    if not 0 <= cluster_selection_epsilon < FARTHEST:
        raise ValueError(
            f"cluster_selection_epsilon must be in [0, 1), got {cluster_selection_epsilon}; 0 "
            "parts clusters at any distance"
        )
    if not sparse.issparse(distance):
        raise ValueError(
            f"distance must be a sparse matrix, got {type(distance).__name__}; pass the result of "
            "jaccard_distance"
        )
    check_square(distance)
    if distance.nnz and not (distance.data.min() >= 0 and distance.data.max() <= FARTHEST):
        raise ValueError(
            f"distance must be in [0, 1], got {distance.data.min()} to {distance.data.max()}; "
            "divide by the largest"
        )
    forest = _spanning_forest(sparse.csr_matrix(distance), min_samples)
    _, component = connected_components(forest, directed=False)
    labels = np.full(len(component), -1, dtype=np.int64)
    images = np.flatnonzero((np.bincount(component) >= min_cluster_size)[component])
    if len(images):
        tree = _join(forest[images][:, images], component[images])
        labels[images] = _choose(
            tree,
            min_cluster_size=min_cluster_size,
            max_cluster_size=max_cluster_size,
            cluster_selection_epsilon=cluster_selection_epsilon,
        )
    return torch.from_numpy(labels)


def _spanning_forest(distance: sparse.csr_matrix, min_samples: int) -> sparse.csr_matrix:
    """Return the minimum spanning trees of images reachable at less than 1, each edge once."""
    images = distance.shape[0]
    rows = np.repeat(np.arange(images), np.diff(distance.indptr))
    off_diagonal = rows != distance.indices  # an image is at distance 0 of itself, stored or not
    rows, columns = rows[off_diagonal], distance.indices[off_diagonal]
    values = distance.data[off_diagonal].astype(np.float64)
    core = _core_distances(values, np.bincount(rows, minlength=images), min_samples - 1)
    reach = np.maximum(np.maximum(core[rows], core[columns]), values)
    edges = (reach < FARTHEST) & (rows < columns)
    weights = np.maximum(reach[edges], NEAREST)
    graph = sparse.csr_matrix((weights, (rows[edges], columns[edges])), distance.shape)
    return minimum_spanning_tree(graph)


def _core_distances(
    values: NDArray[np.float64], sizes: NDArray[np.int64], others: int
) -> NDArray[np.float64]:
    """Return the ``others``-th smallest of each row's values, sizes of which are stored, (N,)."""
    if others == 0:
        return np.zeros(len(sizes))
    rows = np.split(values, np.cumsum(sizes)[:-1])
    return np.array(
        [
            np.partition(row, others - 1)[others - 1] if len(row) >= others else FARTHEST
            for row in rows
        ]
    )


def _join(forest: sparse.csr_matrix, component: NDArray[np.int32]) -> sparse.csr_matrix:
    """Join the trees of a forest at distance 1, as scikit-learn wants one tree."""
    first = np.unique(component, return_index=True)[1]
    rows, columns = np.full(len(first) - 1, first[0]), first[1:]
    bridges = (np.full(len(columns), FARTHEST), (rows, columns))
    return sparse.csr_matrix(forest + sparse.csr_matrix(bridges, forest.shape))


def _choose(tree: sparse.csr_matrix, **options: Any) -> NDArray[np.int64]:
    """Choose the clusters of a minimum spanning tree, each edge of which is stored once."""
    # Imported here: `import pplr_lightning` need not wait for it.
    from sklearn.cluster import HDBSCAN

    # With one sample the core distances, which are in the tree already, stay out.
    model = HDBSCAN(metric="precomputed", min_samples=1, copy=False, **options)
    try:
        return model.fit_predict(tree + tree.T)
    except TypeError as error:  # scikit-learn's issue 33219
        epsilon = options["cluster_selection_epsilon"]
        if epsilon == 0:
            raise
        raise ValueError(
            f"cluster_selection_epsilon must be 0 with this scikit-learn and NumPy "
            f"{np.__version__}, got {epsilon}; install numpy<2.4 or a newer scikit-learn"
        ) from error
