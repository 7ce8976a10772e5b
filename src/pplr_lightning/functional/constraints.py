"""Clusters that obey what is known of pairs of images."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import sparse
from scipy.sparse.csgraph import connected_components
from torch import Tensor
from torch.nn.functional import normalize

from pplr_lightning.functional.cannot_link import Groups
from pplr_lightning.functional.checks import check_finite, check_shape
from pplr_lightning.functional.clustering import sum_rows
from pplr_lightning.functional.sharding import Share


@torch.no_grad()
def constrain_labels(
    features: Tensor,
    labels: Tensor,
    *,
    must_link: Tensor | None = None,
    cannot_link: Tensor | None = None,
    dropped: Tensor | None = None,
    share: Share | None = None,
) -> Tensor:
    """Change clusters to obey pairs of images, exactly, and as little else as that takes.

    1. A cluster that holds images that cannot be linked, by a pair or over what is linked, is
       parted. What is linked is placed as one, at its mean: of what pairs name, the largest first,
       each goes to the nearest part, or begins one of its own where that cannot take it; then all
       else goes to the nearest part (by cosine; after COP-k-means, which takes the next nearest
       that can; Wagstaff et al., "Constrained k-means clustering with background knowledge", ICML
       2001). So images that are split off one by one, and look more like the cluster than like
       each other, mostly end alone: link those that are one person.
    2. Pairs that must be linked join the whole clusters, or parts, of their ends, as in C-DBSCAN
       (Ruiz et al., "C-DBSCAN: Density-based clustering with constraints", RSFDGrC 2007). An
       outlier that is linked to a clustered image joins its cluster. Outliers that are linked to
       each other alone are one, however few: someone has seen them, and a density is a guess.
    3. What then holds images that cannot be linked is parted again.

    Images that are thus left alone are outliers. The time is that of N images and M pairs, and of
    the images of parted clusters times their parts; no two images are compared.

    Args:
        features: L2-normalised rows, (N, D), this process's where there are several.
        labels: Clusters 0 to K - 1 without gaps, of any algorithm, -1 for outliers, (N,) int64.
        must_link: Images that are of one person, two in each row, (M, 2) int64.
        cannot_link: Images that are of two people, likewise.
        dropped: Images that shall be in no cluster, though they link others, (N,) bool.
        share: The rows of this process among the N; None where it has all.

    Returns:
        Clusters 0 to K' - 1 without gaps, -1 for outliers, (N,) int64 on the CPU: those that were
        there in their order, then new ones. No image that was clustered is an outlier but those
        that are dropped and those left alone.

    Raises:
        ValueError: The shapes do not fit, a pair names no image, ``features`` are not finite, or
            images that cannot be linked must be, over whatever chain.

    Example:
        >>> features = torch.eye(3)[[0, 0, 1, 1, 2, 2]]
        >>> labels = torch.tensor([0, 0, 0, 0, 1, -1])
        >>> constrain_labels(
        ...     features,
        ...     labels,
        ...     must_link=torch.tensor([[4, 5]]),
        ...     cannot_link=torch.tensor([[0, 2]]),
        ... )
        tensor([0, 0, 2, 2, 1, 1])
    """
    check_finite(features)
    share = share or Share(len(features))
    check_shape("labels", labels, (share.total,))
    given = labels.cpu().numpy()
    must = _pairs("must_link", must_link, share.total)
    cannot = _pairs("cannot_link", cannot_link, share.total)
    sets = linked_sets(torch.from_numpy(must), share.total).numpy()
    if len(both := np.flatnonzero(sets[cannot[:, 0]] == sets[cannot[:, 1]])):
        one, other = cannot[both[0]]
        raise ValueError(
            f"images {one} and {other} cannot be linked, but must be by must_link, directly or "
            "over others; take one of these pairs out"
        )
    # Parted first, so that an image that is in a wrong cluster does not join that with its own.
    parted = _part(features, given, sets, cannot, share)
    parted = _part(features, _join(parted, sets), sets, cannot, share)
    if dropped is not None:
        check_shape("dropped", dropped, (share.total,))
        parted[dropped.cpu().numpy()] = -1
    parted[_alone(parted) & ~_alone(given)] = -1
    kept = parted >= 0
    parted[kept] = np.unique(parted[kept], return_inverse=True)[1]
    return torch.from_numpy(parted)


def linked_sets(must_link: Tensor, images: int) -> Tensor:
    """Number the sets of images that must be linked, over any chain of pairs.

    Args:
        must_link: Two images in each row, (M, 2) int64.
        images: N.

    Returns:
        Set of each image, many of them of one image, in the order of their lowest ones, (N,) int64.

    Example:
        >>> linked_sets(torch.tensor([[0, 2], [2, 3]]), 5)
        tensor([0, 1, 0, 0, 2])
    """
    return torch.from_numpy(_components(must_link.cpu().numpy(), images))


def _components(edges: NDArray[np.int64], nodes: int) -> NDArray[np.int64]:
    graph = sparse.csr_matrix((np.ones(len(edges), bool), (edges[:, 0], edges[:, 1])), (nodes,) * 2)
    return connected_components(graph, directed=False)[1].astype(np.int64)


def _pairs(name: str, pairs: Tensor | None, images: int) -> NDArray[np.int64]:
    if pairs is None:
        return np.empty((0, 2), dtype=np.int64)
    check_shape(name, pairs, (len(pairs), 2))
    found = pairs.cpu().numpy()
    if len(found) and not 0 <= found.min() <= found.max() < images:
        raise ValueError(
            f"{name} must be of images 0 to {images - 1}, got {found.min()} to {found.max()}; make "
            "it of the images that are clustered"
        )
    return found


def _join(labels: NDArray[np.int64], sets: NDArray[np.int64]) -> NDArray[np.int64]:
    """Join the clusters and outliers that hold images of one set."""
    clusters = int(labels.max(initial=-1)) + 1
    linked = np.bincount(sets)[sets] > 1
    clustered = labels >= 0
    edges = np.stack([labels, clusters + sets], axis=1)[linked & clustered]
    # Clusters come first, so that they keep their order.
    component = _components(edges, clusters + int(sets.max(initial=-1)) + 1)
    joined = np.full_like(labels, -1)
    joined[clustered] = component[labels[clustered]]
    joined[linked] = component[clusters + sets[linked]]
    return joined


def _part(
    features: Tensor,
    labels: NDArray[np.int64],
    sets: NDArray[np.int64],
    cannot: NDArray[np.int64],
    share: Share,
) -> NDArray[np.int64]:
    """Part the clusters that hold a pair that cannot be linked."""
    labels = labels.copy()
    apart = _conflicts(labels, sets, cannot)
    if not apart:  # on all processes alike
        return labels
    rows = np.flatnonzero(np.isin(labels, list(apart)))
    held = np.stack([labels[rows], sets[rows]])  # a set may lie in several clusters
    (cluster, owner), unit = np.unique(held, axis=1, return_inverse=True)
    unit, sizes = unit.ravel(), np.bincount(unit.ravel())
    numbers = torch.full((share.total,), -1)
    numbers[torch.from_numpy(rows)] = torch.from_numpy(unit)
    own = numbers[share.start : share.stop].to(features.device)
    sums = sum_rows(features, own, len(owner), share).cpu()
    place = cluster.copy()
    new = int(labels.max()) + 1
    bounds = np.flatnonzero(np.diff(cluster)) + 1
    for some in np.split(np.arange(len(cluster)), bounds):
        number = int(cluster[some[0]])
        units = sorted(some.tolist(), key=lambda one: (-sizes[one], one))
        parts = _place(sums, units, owner, apart[number])
        for part in parts[1:]:
            place[part] = new
            new += 1
    labels[rows] = place[unit]
    return labels


def _conflicts(
    labels: NDArray[np.int64], sets: NDArray[np.int64], cannot: NDArray[np.int64]
) -> dict[int, Groups]:
    """Find of each cluster that holds such which sets cannot be with which, both ways."""
    pairs = np.unique(sets[cannot], axis=0)
    named = np.isin(sets, pairs) & (labels >= 0)
    clusters: Groups = {}
    for one, cluster in zip(sets[named].tolist(), labels[named].tolist(), strict=True):
        clusters.setdefault(one, set()).add(cluster)
    found: dict[int, Groups] = {}
    for one, other in pairs.tolist():
        for cluster in clusters.get(one, set()) & clusters.get(other, set()):
            apart = found.setdefault(cluster, {})
            apart.setdefault(one, set()).add(other)
            apart.setdefault(other, set()).add(one)
    return found


def _place(
    sums: Tensor, units: list[int], owner: NDArray[np.int64], apart: Groups
) -> list[list[int]]:
    """Give each unit of a cluster the nearest part, or one of its own where that cannot take it.

    Not the next nearest that can, as COP-k-means does: what is split off is not said to be one
    person, and all of it would end in one part. The cost is that of what looks most like the
    cluster that it was split off each image begins a part, and is an outlier if it stays alone
    (docs/labels.md has how often), until a pair links it.
    """
    named = [unit for unit in units if int(owner[unit]) in apart]
    others = [unit for unit in units if int(owner[unit]) not in apart]
    parts, taken = [[named[0]]], [{int(owner[named[0]])}]
    means = sums[named[:1]].clone()
    for unit in named[1:]:
        nearest, one = int((normalize(means, dim=1) @ sums[unit]).argmax()), int(owner[unit])
        if apart[one].isdisjoint(taken[nearest]):
            parts[nearest].append(unit)
            taken[nearest].add(one)
            means[nearest] += sums[unit]
        else:
            parts.append([unit])
            taken.append({one})
            means = torch.cat([means, sums[None, unit]])
    nearest_of = (normalize(sums[others], dim=1) @ normalize(means, dim=1).T).argmax(dim=1)
    for unit, nearest in zip(others, nearest_of.tolist(), strict=True):
        parts[nearest].append(unit)
    return parts


def _alone(labels: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Tell which images are the only ones of their cluster."""
    alone = np.append(np.bincount(labels[labels >= 0]) == 1, False)
    return alone[labels]  # -1 picks the last
