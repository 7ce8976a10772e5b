"""k-reciprocal Jaccard distance, sparse from end to end."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import sparse
from torch import Tensor

from pplr_lightning.functional.neighbors import (
    check_count,
    check_features,
    check_neighbors,
    nearest_neighbors,
)

CHUNK_BYTES = 2**26  # temporary memory of the chunked steps
TOLERANCE = 1e-6  # pairs this much beyond a threshold are within it


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

    After the dot products all is float64, so that ties such as d = 0.5, where neighbour lists
    share 4 of 6, do not depend on rounding.

    Args:
        features: L2-normalised rows, (N, D).
        k1: Neighbours that are tested for reciprocity, the image itself included.
        k2: Neighbours whose encodings are averaged, the image itself included; 1 turns it off.
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
    if not 0 <= max_distance <= 1:
        raise ValueError(f"max_distance must be in [0, 1], got {max_distance}; 1 keeps all pairs")
    if neighbors is None:
        neighbors = nearest_neighbors(features, max(k1, k2))
    check_neighbors(neighbors, len(features), max(k1, k2))

    lists = neighbors.cpu().numpy()
    expanded = expand_reciprocal(lists[:, :k1], half=round(k1 / 2) + 1)
    encoding = softmax_rows(expanded, 2 - 2 * entry_similarity(features, expanded))
    encoding = average_nearest(encoding, lists, k2)
    chunks = [_to_distance(sums, max_distance) for sums in minima_sums(encoding, encoding)]
    return sparse.vstack(chunks, format="csr")


def expand_reciprocal(lists: NDArray[np.int64], *, half: int) -> sparse.csr_matrix:
    """Return the expanded k-reciprocal neighbours of every image as the entries of a matrix.

    With R(i) the images that are in i's list and have i in theirs, and H(i) likewise for the
    lists' first ``half`` columns, E(i) is R(i) joined with every H(c), c in R(i), that lies in
    R(i) by more than two thirds.

    Args:
        lists: Neighbours of every image, the image itself included, (N, k).
        half: Columns that candidates are expanded with, the image itself included.

    Returns:
        (N, N) matrix whose stored entries of row i are E(i); its values mean nothing. A row is
        empty where an image with many duplicates is in no list, not even its own.
    """
    reciprocal = _mutual(lists)
    core = _mutual(lists[:, :half])
    # |H(c) ∩ R(i)| for every c in R(i); `core` is its own transpose.
    joined = (reciprocal @ core).multiply(reciprocal).tocsr()
    core_size = np.diff(core.indptr)
    joined.data = (3 * joined.data > 2 * core_size[joined.indices]).astype(np.int32)
    joined.eliminate_zeros()
    expanded = (reciprocal + joined @ core).tocsr()
    expanded.sort_indices()
    return expanded


def entry_similarity(features: Tensor, entries: sparse.csr_matrix) -> NDArray[np.float64]:
    """Return the dot product of features (N, D) for every stored entry of an (N, N) matrix."""
    coordinates = entries.tocoo()
    rows = torch.from_numpy(coordinates.row).to(features.device)
    columns = torch.from_numpy(coordinates.col).to(features.device)
    # Two gathered rows and their product, in float32.
    size = max(1, CHUNK_BYTES // (12 * features.shape[1]))
    products = [
        (features[row].float() * features[column].float()).sum(dim=1)
        for row, column in zip(torch.split(rows, size), torch.split(columns, size), strict=True)
    ]
    return torch.cat(products).double().cpu().numpy()


def softmax_rows(entries: sparse.csr_matrix, distance: NDArray[np.float64]) -> sparse.csr_matrix:
    """Return the matrix whose rows are softmax(-distance) over their stored entries."""
    weights = sparse.csr_matrix((np.exp(-distance), entries.indices, entries.indptr), entries.shape)
    totals = np.asarray(weights.sum(axis=1)).ravel()
    weights.data /= np.repeat(totals, np.diff(weights.indptr))
    return weights


def average_nearest(
    encoding: sparse.csr_matrix, lists: NDArray[np.int64], k2: int
) -> sparse.csr_matrix:
    """Average every row of the encoding over the image's k2 nearest, itself included."""
    if k2 == 1:
        # Not the same as averaging one row: a duplicate may stand before the image itself.
        return encoding
    average = (_membership(lists[:, :k2]).astype(np.float64) @ encoding / k2).tocsr()
    average.sort_indices()  # sums over it then run in the same order for (i, j) and (j, i)
    return average


def minima_sums(rows: sparse.csr_matrix, others: sparse.csr_matrix) -> Iterator[sparse.csr_matrix]:
    """Yield s_ij = sum_c min(rows_ic, others_jc), some rows of the (n, m) matrix at a time.

    A chunk takes ``CHUNK_BYTES`` of temporary memory, or what one row needs.

    Args:
        rows: Non-negative, (n, C).
        others: Non-negative, (m, C).

    Yields:
        Consecutive rows of s, their indices not sorted; what is not stored is 0.
    """
    by_column = others.T.tocsr()
    terms = np.cumsum(np.diff(by_column.indptr)[rows.indices], dtype=np.int64)
    done = np.concatenate([[0], terms])[rows.indptr]  # terms before each row
    limit = CHUNK_BYTES // 40  # bytes of one term: index, value, and the temporaries beside it
    start = 0
    while start < rows.shape[0]:
        within = int(np.searchsorted(done, done[start] + limit, side="right")) - 1
        stop = max(start + 1, within)
        yield _minima_sums(rows[start:stop], by_column)
        start = stop


def _minima_sums(rows: sparse.csr_matrix, by_column: sparse.csr_matrix) -> sparse.csr_matrix:
    # One row of terms (j, min(rows_ic, others_jc)) for every stored entry (i, c) ...
    terms = by_column[rows.indices]
    terms.data = np.minimum(terms.data, np.repeat(rows.data, np.diff(terms.indptr)))
    # ... and a product with ones to add those of the same i.
    entries = len(rows.indices)
    adder = sparse.csr_matrix(
        (np.ones(entries), np.arange(entries), rows.indptr), (rows.shape[0], entries)
    )
    return (adder @ terms).tocsr()


def _to_distance(sums: sparse.csr_matrix, max_distance: float) -> sparse.csr_matrix:
    distance = 1 - sums.data / (2 - sums.data)
    distance[distance < 1e-12] = 0  # what float64 leaves of 1 - 1
    every = sparse.csr_matrix((distance, sums.indices, sums.indptr), sums.shape)
    near = keep_within(every, max_distance).astype(np.float32)
    near.sort_indices()
    return near


def keep_within(distance: sparse.csr_matrix, limit: float) -> sparse.csr_matrix:
    """Drop the stored entries above limit + 1e-6; unlike scipy's ways, keep stored zeros."""
    keep = distance.data <= limit + TOLERANCE
    indptr = np.concatenate([[0], np.cumsum(keep)])[distance.indptr]
    return sparse.csr_matrix((distance.data[keep], distance.indices[keep], indptr), distance.shape)


def _mutual(lists: NDArray[np.int64]) -> sparse.csr_matrix:
    member = _membership(lists)
    return member.multiply(member.T).tocsr()


def _membership(lists: NDArray[np.int64]) -> sparse.csr_matrix:
    """Return the (N, N) matrix with a 1 where j is in i's list, (N, k)."""
    count, columns = lists.shape
    indptr = np.arange(0, count * columns + 1, columns)
    ones = np.ones(lists.size, dtype=np.int32)
    member = sparse.csr_matrix((ones, lists.ravel(), indptr), (count, count))
    member.sort_indices()
    return member
