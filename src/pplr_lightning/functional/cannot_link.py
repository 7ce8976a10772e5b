"""DBSCAN's clusters without pairs that are known to be of two people."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import sparse
from torch import Tensor

Groups = dict[int, set[int]]  # of images, or of clusters


def count_linked(labels: Tensor, cannot_link: Tensor) -> int:
    """Count the pairs of images that share a cluster and a group, which they must not.

    Args:
        labels: Clusters, -1 for outliers, (N,).
        cannot_link: As of `dbscan`, (M, 2).

    Raises:
        ValueError: ``cannot_link`` is no such table of N images.

    Example:
        >>> groups = torch.tensor([[0, 0], [1, 0], [2, 0]])
        >>> count_linked(torch.tensor([5, 5, -1]), groups)
        1
    """
    check_cannot_link(cannot_link, len(labels))
    images, groups = cannot_link.unique(dim=0).T
    clusters = labels.to(images)[images]
    shared = torch.stack([clusters, groups])[:, clusters >= 0]
    counts = shared.unique(dim=1, return_counts=True)[1]
    return int((counts * (counts - 1)).sum()) // 2


def check_cannot_link(cannot_link: Tensor, images: int) -> None:
    """Check that each row names one of the images, and a group."""
    shape, dtype = tuple(cannot_link.shape), cannot_link.dtype
    if len(shape) != 2 or shape[1] != 2 or dtype != torch.int64:
        raise ValueError(
            f"cannot_link must be (M, 2) of int64, got {shape} of {dtype}; give an image and its "
            "group in each row"
        )
    if not len(cannot_link):
        return
    low, high = map(int, cannot_link[:, 0].aminmax())
    if low < 0 or high >= images:
        raise ValueError(
            f"cannot_link must be of images 0 to {images - 1}, got {low} to {high}; make it of the "
            "images that are clustered"
        )


def groups_of(cannot_link: Tensor) -> Groups:
    """List the groups of each image that has any."""
    found: Groups = {}
    for image, group in cannot_link.tolist():
        found.setdefault(image, set()).add(group)
    return found


def part_cores(
    near: sparse.csr_matrix, labels: NDArray[np.int64], groups: Groups
) -> NDArray[np.int64]:
    """Join cores in the order of their distances, but never two that cannot be one.

    Components that hold no two images of a group come out as they went in, so that only the others
    cost anything: the sort of their E edges, and the groups of the smaller part at each union.

    Args:
        near: Distances of the pairs of neighbours, and no other, (N, N).
        labels: Components of the cores, -1 for every other image, (N,).
        groups: Of the images.

    Returns:
        Clusters 0 to K - 1 in the order of their lowest cores, -1 for every other image, (N,).
    """
    parents = np.unique(labels, return_index=True)[1][labels - labels.min(initial=0)]
    parents[labels < 0] = -1
    mixed = _mixed(labels, groups)
    again = np.isin(labels, mixed)
    parents[again] = np.flatnonzero(again)
    rows = np.flatnonzero(again)
    edges = near[rows].tocoo()
    rows = rows[edges.row]
    kept = again[edges.col] & (rows < edges.col)
    rows, columns, distances = rows[kept], edges.col[kept], edges.data[kept]
    held = {image: set(groups.get(image, ())) for image in np.flatnonzero(again).tolist()}
    parent = parents.tolist()
    for edge in np.lexsort((columns, rows, distances)).tolist():
        one, other = _root(parent, int(rows[edge])), _root(parent, int(columns[edge]))
        if one == other or not held[one].isdisjoint(held[other]):
            continue
        low, high = min(one, other), max(one, other)  # a cluster is its lowest core
        small, large = sorted((held.pop(one), held.pop(other)), key=len)
        large |= small
        parent[high], held[low] = low, large
    cores = np.flatnonzero(labels >= 0)
    found = np.full_like(labels, -1)
    roots = [_root(parent, core) for core in cores.tolist()]
    found[cores] = np.unique(np.array(roots, dtype=np.int64), return_inverse=True)[1]
    return found


def attach(
    near: sparse.csr_matrix, labels: NDArray[np.int64], others: NDArray[np.int64], groups: Groups
) -> None:
    """Give images that are no cores the lowest cluster among their neighbours that may have them.

    The nearest come first; of equally near ones the first. The labels are changed in place.

    Args:
        near: As of `part_cores`, (N, N).
        labels: Clusters of the cores, -1 for every other image, (N,).
        others: The images to place, all of them with groups.
        groups: Of the images.
    """
    held: Groups = {}
    for image, some in groups.items():
        if labels[image] >= 0:
            held.setdefault(int(labels[image]), set()).update(some)
    edges = near[others].tocoo()
    clusters = labels[edges.col]
    reached = clusters >= 0
    rows, clusters, distances = edges.row[reached], clusters[reached], edges.data[reached]
    nearest = np.full(len(others), np.inf)
    np.minimum.at(nearest, rows, distances)
    placed: set[int] = set()
    for edge in np.lexsort((clusters, rows, nearest[rows])).tolist():
        image, cluster = int(others[rows[edge]]), int(clusters[edge])
        taken = held.setdefault(cluster, set())
        if image not in placed and taken.isdisjoint(groups[image]):
            placed.add(image)
            labels[image] = cluster
            taken |= groups[image]


def _mixed(labels: NDArray[np.int64], groups: Groups) -> list[int]:
    """List the components that hold two images of one group."""
    held: Groups = {}
    mixed = set()
    for image, some in groups.items():
        if (label := int(labels[image])) >= 0:
            taken = held.setdefault(label, set())
            if not taken.isdisjoint(some):
                mixed.add(label)
            taken |= some
    return sorted(mixed)


def _root(parent: list[int], image: int) -> int:
    while parent[image] != image:
        parent[image] = image = parent[parent[image]]
    return image
