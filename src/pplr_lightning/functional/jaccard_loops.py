"""The compiled loops of the Jaccard distance: each takes some rows and returns them.

Sparse rows go in as the three arrays of a CSR matrix and come out as (sizes, indices[, data]): the
stored entries of each row, and those of all rows one after the other, sorted within a row.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from pplr_lightning.functional.compiled import compiled

Sizes = NDArray[np.int64]
Indices = NDArray[np.int32]
Values = NDArray[np.floating[Any]]
Csr = tuple[NDArray[Any], NDArray[Any], Values]  # indptr, indices, data
Rows = tuple[Sizes, Indices, Values]


@compiled
def mutual(lists: Indices, columns: int, start: int, stop: int) -> Indices:
    """Return the images that are in each other's first columns, (rows, columns), -1 behind them.

    The lists, too, may end with -1.
    """
    found = np.full((stop - start, columns), -1, dtype=np.int32)
    for image in range(start, stop):
        size = 0
        for other in lists[image, :columns]:
            if other < 0:
                break
            for back in lists[other, :columns]:
                if back == image:
                    found[image - start, size] = other
                    size += 1
                    break
    return found


@compiled
def expand(lists: Indices, core: Indices, start: int, stop: int) -> tuple[Sizes, Indices]:
    """Return E(i), see `expand_reciprocal`; ``core`` holds H of all images as `mutual` gives it."""
    width = lists.shape[1]
    sizes = np.zeros(stop - start, dtype=np.int64)
    indices = np.empty((stop - start) * 2 * width, dtype=np.int32)
    members = np.empty(width * (1 + core.shape[1]), dtype=np.int32)
    in_reciprocal = np.full(len(lists), -1, dtype=np.int32)  # the last image whose R it was in
    in_expanded = np.full(len(lists), -1, dtype=np.int32)
    reciprocal = mutual(lists, width, start, stop)
    filled = 0
    for image in range(start, stop):
        size = 0
        for other in reciprocal[image - start]:
            if other < 0:
                break
            in_reciprocal[other] = image
            in_expanded[other] = image
            members[size] = other
            size += 1
        for candidate in reciprocal[image - start]:
            if candidate < 0:
                break
            inside = 0
            total = 0
            for other in core[candidate]:
                if other < 0:
                    break
                total += 1
                inside += in_reciprocal[other] == image
            if 3 * inside <= 2 * total:
                continue
            for other in core[candidate, :total]:
                if in_expanded[other] != image:
                    in_expanded[other] = image
                    members[size] = other
                    size += 1
        if filled + size > len(indices):
            indices = _grown(indices, filled, filled + size)
        indices[filled : filled + size] = np.sort(members[:size])
        sizes[image - start] = size
        filled += size
    return sizes, indices[:filled].copy()


@compiled
def minima(rows: Csr, by_column: Csr, others: int, limit: float, start: int, stop: int) -> Rows:
    """Return s_ij of each row with the others, see `minima_sums`, where 1 - s / (2 - s) <= limit.

    The others come by column: the CSR matrix of their transpose.
    """
    indptr, indices, data = rows
    column_indptr, column_indices, column_data = by_column
    sizes = np.zeros(stop - start, dtype=np.int64)
    indices_out = np.empty((stop - start) * 32, dtype=np.int32)
    data_out = np.empty((stop - start) * 32, dtype=np.float64)
    total = np.zeros(others, dtype=np.float64)
    touched = np.empty(others, dtype=np.int32)
    filled = 0
    for row in range(start, stop):
        count = 0
        for entry in range(indptr[row], indptr[row + 1]):
            value = data[entry]
            column = indices[entry]
            for term in range(column_indptr[column], column_indptr[column + 1]):
                other = column_indices[term]
                if total[other] == 0:  # no weight is 0
                    touched[count] = other
                    count += 1
                total[other] += min(value, column_data[term])
        kept = 0
        for place in range(count):
            other = touched[place]
            shared = total[other]
            if 1 - shared / (2 - shared) <= limit:
                touched[kept] = other
                kept += 1
            else:
                total[other] = 0
        if filled + kept > len(indices_out):
            indices_out = _grown(indices_out, filled, filled + kept)
            data_out = _grown(data_out, filled, filled + kept)
        near = np.sort(touched[:kept])
        for other in near:
            indices_out[filled] = other
            data_out[filled] = total[other]
            total[other] = 0
            filled += 1
        sizes[row - start] = kept
    return sizes, indices_out[:filled].copy(), data_out[:filled].copy()


@compiled
def _grown(array: NDArray[Any], filled: int, least: int) -> NDArray[Any]:
    larger = np.empty(max(2 * len(array), least), dtype=array.dtype)
    larger[:filled] = array[:filled]
    return larger
