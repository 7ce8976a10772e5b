"""k-reciprocal Jaccard distance, sparse from end to end."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import sparse
from torch import Tensor

from pplr_lightning.functional import jaccard_loops as loops
from pplr_lightning.functional.checks import (
    check_count,
    check_features,
    check_fraction,
    check_neighbors,
)
from pplr_lightning.functional.compiled import over_rows
from pplr_lightning.functional.neighbor_lists import entry_dots
from pplr_lightning.functional.neighbors import nearest_neighbors
from pplr_lightning.functional.sharding import Share

TOLERANCE = 1e-6  # pairs this much beyond a threshold are within it
CHUNK = 1024  # rows that a thread works on at a time


@torch.no_grad()
def jaccard_distance(
    features: Tensor,
    *,
    k1: int = 30,
    k2: int = 6,
    neighbors: Tensor | None = None,
    max_distance: float = 1.0,
) -> sparse.csr_matrix:
    """Compute the k-reciprocal Jaccard distance of all pairs that share neighbours.

    Zhong et al., "Re-ranking Person Re-identification with k-reciprocal Encoding", CVPR 2017, in
    the form that PPLR clusters: every image i is encoded as Q_i, a distribution over its
    expanded k-reciprocal neighbours averaged over its k2 nearest, and

        d_ij = 1 - s_ij / (2 - s_ij),    s_ij = sum_c min(Q_ic, Q_jc).

    Sums are float64, and Q is kept in float32: ties such as d = 0.5, where neighbour lists share
    4 of 6, are off by some 1e-7. Memory grows with N times the neighbours of an image, not with
    N x N.

    Args:
        features: L2-normalised rows, (N, D).
        k1: Neighbours that are tested for reciprocity, the image itself included.
        k2: Neighbours whose encodings are averaged, the image itself included; 1 turns it off, and
            an image with so many duplicates that it is in no list is then far from all.
        neighbors: Result of `nearest_neighbors` on ``features`` with k >= max(k1, k2), if there
            is one already.
        max_distance: Leave out pairs farther apart than this (plus 1e-6), in [0, 1].

    Returns:
        Symmetric (N, N) float32 matrix with sorted indices. A stored value is a distance in
        [0, 1], a stored 0 the distance 0; a pair that is not stored is at distance 1, or above
        ``max_distance``.

    Raises:
        ValueError: ``features`` are not 2-D, not finite or not normalised, ``k1`` or ``k2``
            exceeds N, ``neighbors`` do not fit, or ``max_distance`` is out of range.
    """
    check_features(features)
    check_count("k1", k1, len(features))
    check_count("k2", k2, len(features))
    check_fraction("max_distance", max_distance, "1 keeps all pairs")
    if neighbors is None:
        neighbors = nearest_neighbors(features, max(k1, k2))
    check_neighbors(neighbors, len(features), max(k1, k2))
    share = Share(len(features))
    return jaccard_rows(features, neighbors.cpu(), share, k1=k1, k2=k2, max_distance=max_distance)


def jaccard_rows(
    features: Tensor, neighbors: Tensor, share: Share, *, k1: int, k2: int, max_distance: float
) -> sparse.csr_matrix:
    """Compute this process's rows of `jaccard_distance`, (n, N).

    The features are those of its rows, on the CPU where there are several processes; the lists are
    those of all images, on the CPU, (N, >= max(k1, k2)).
    """
    lists = neighbors[:, : max(k1, k2)].int().contiguous().numpy()
    members = expand_reciprocal(lists[:, :k1], round(k1 / 2) + 1, share.rows)
    return encoded_distance(features, members, lists, k2, share, max_distance=max_distance)


def encoded_distance(
    features: Tensor,
    members: sparse.csr_matrix,
    lists: NDArray[np.int32],
    k2: int,
    share: Share,
    *,
    max_distance: float,
) -> sparse.csr_matrix:
    """Compute this process's rows of the distance, (n, N), from the neighbours of its images.

    Args:
        features: L2-normalised rows of this process, (n, D); on the CPU where there are several.
        members: Its stored entries are the neighbours that encode each image; they are
            overwritten, (n, N).
        lists: Images whose encodings are averaged, of all images, -1 for none, (N, >= k2).
        k2: As for `average_nearest`.
        share: The rows of this process among the N.
        max_distance: As for `jaccard_distance`.
    """
    # softmax of -(2 - 2cos) over the neighbours
    members.data[:] = 2 * entry_similarity(features, members, share) - 2
    normalize_exponentials(members)
    encoding = share.gather_sparse(members)
    average = share.gather_sparse(average_nearest(encoding, lists, k2, share.rows))
    del members, encoding
    sums = minima_sums(average[share.start : share.stop], average, max_distance=max_distance)
    distance = 1 - sums.data / (2 - sums.data)
    distance[distance < TOLERANCE] = 0  # what rounding leaves of 1 - 1
    sums.data = distance.astype(np.float32)
    return sums


def expand_reciprocal(lists: NDArray[np.int32], half: int, rows: range) -> sparse.csr_matrix:
    """Return the expanded k-reciprocal neighbours of images as the entries of a matrix.

    With R(i) the images that are in i's list and have i in theirs, and H(i) likewise for the
    lists' first ``half`` columns, E(i) is R(i) joined with every H(c), c in R(i), that lies in
    R(i) by more than two thirds.

    Args:
        lists: Neighbours of every image, the image itself included, (N, k).
        half: Columns that candidates are expanded with, the image itself included.
        rows: Images that are wanted, n of them.

    Returns:
        (n, N) float64 matrix with sorted indices whose stored entries of row i are E(i); its
        values mean nothing. A row is empty where an image with many duplicates is in no list,
        not even its own.
    """
    lists = np.ascontiguousarray(lists)
    core = mutual_neighbors(lists, half, range(len(lists)))
    parts = over_rows(partial(loops.expand, lists, core), rows, chunk=CHUNK)
    sizes, indices = (np.concatenate(part) for part in zip(*parts, strict=True))
    return _rows_of(sizes, indices, np.empty(len(indices)), len(lists))


def mutual_neighbors(lists: NDArray[np.int32], columns: int, rows: range) -> NDArray[np.int32]:
    """Return the images that are in an image's list and have it in theirs.

    Args:
        lists: Neighbours of every image, -1 behind their end, contiguous, (N, >= columns).
        columns: First columns of the lists that are compared.
        rows: Images that are wanted, n of them.

    Returns:
        (n, columns), -1 behind the last.
    """
    return np.concatenate(over_rows(partial(loops.mutual, lists, columns), rows, chunk=CHUNK))


def entry_similarity(
    features: Tensor, entries: sparse.csr_matrix, share: Share | None = None
) -> NDArray[np.float64]:
    """Return the dot product of images for every stored entry of an (n, N) matrix.

    Args:
        features: Rows of this process, (n, D); on the CPU where there are several.
        entries: Pairs of this process's images with all images.
        share: The rows of this process among the N; None where it has all.
    """
    similarity = np.empty(entries.nnz)
    for start, block in (share or Share(len(features))).blocks(features):
        if len(block) == entries.shape[1]:
            return entry_dots(features, block, entries.indptr, entries.indices)
        here = (entries.indices >= start) & (entries.indices < start + len(block))
        indptr = np.concatenate([[0], np.cumsum(here)])[entries.indptr]
        similarity[here] = entry_dots(features, block, indptr, entries.indices[here] - start)
    return similarity


def normalize_exponentials(logits: sparse.csr_matrix) -> None:
    """Turn every row into its softmax over the stored entries, in place."""
    np.exp(logits.data, out=logits.data)
    totals = np.asarray(logits.sum(axis=1)).ravel()
    logits.data /= np.repeat(totals, np.diff(logits.indptr))


def average_nearest(
    encoding: sparse.csr_matrix, lists: NDArray[np.int32], k2: int, rows: range
) -> sparse.csr_matrix:
    """Average the encodings (N, N) over the k2 nearest of images, themselves included.

    Args:
        encoding: Its indices sorted, (N, N).
        lists: Neighbours of every image, -1 for none, (N, >= k2).
        k2: Encodings that are averaged; 1 keeps an image's own, which is not always that of the
            first in its list: a duplicate may stand there.
        rows: Images that are wanted, n of them.

    Returns:
        (n, N) float32 matrix with sorted indices.
    """
    if k2 == 1:
        return encoding[rows.start : rows.stop].astype(np.float32)

    def average(start: int, stop: int) -> sparse.csr_matrix:
        nearest = lists[start:stop, :k2]
        sizes = (nearest >= 0).sum(axis=1)
        indptr = np.concatenate([[0], np.cumsum(sizes)])
        members = (np.ones(indptr[-1]), nearest[nearest >= 0], indptr)
        # The sums are float64, taken in the order of the list.
        total = sparse.csr_matrix(members, (len(nearest), len(lists))) @ encoding
        total.sort_indices()
        total.data /= np.repeat(sizes, np.diff(total.indptr))
        return total.astype(np.float32)

    return sparse.vstack(over_rows(average, rows, chunk=CHUNK), format="csr")


def minima_sums(
    rows: sparse.csr_matrix, others: sparse.csr_matrix, *, max_distance: float = 1.0
) -> sparse.csr_matrix:
    """Return s_ij = sum_c min(rows_ic, others_jc) of the pairs with 1 - s / (2 - s) small enough.

    Args:
        rows: Non-negative, (n, C), its indices sorted.
        others: Non-negative, (m, C).
        max_distance: Leave out pairs farther apart than this (plus 1e-6), in [0, 1].

    Returns:
        (n, m) float64 matrix with sorted indices; what is not stored is 0 or left out.
    """
    by_column = _csr(others.T.tocsr())
    loop = partial(loops.minima, _csr(rows), by_column, others.shape[0], max_distance + TOLERANCE)
    parts = over_rows(loop, range(rows.shape[0]), chunk=CHUNK)
    sizes, indices, data = (np.concatenate(part) for part in zip(*parts, strict=True))
    return _rows_of(sizes, indices, data, others.shape[0])


def keep_within(distance: sparse.csr_matrix, limit: float) -> sparse.csr_matrix:
    """Drop the stored entries above limit + 1e-6; unlike scipy's ways, keep stored zeros."""
    keep = distance.data <= limit + TOLERANCE
    indptr = np.concatenate([[0], np.cumsum(keep)])[distance.indptr]
    return sparse.csr_matrix((distance.data[keep], distance.indices[keep], indptr), distance.shape)


def _csr(matrix: sparse.csr_matrix) -> loops.Csr:
    return matrix.indptr, matrix.indices, matrix.data


def _rows_of(sizes: Any, indices: Any, data: Any, columns: int) -> sparse.csr_matrix:
    """Return a matrix of rows as loops give them, (n, columns)."""
    indptr = np.concatenate([[0], np.cumsum(sizes)])
    return sparse.csr_matrix((data, indices, indptr), (len(sizes), columns))
