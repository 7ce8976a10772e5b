"""Neighbour lists that grow block by block, in an order that no search engine decides."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pplr_lightning.functional.compiled import compiled, over_rows
from pplr_lightning.functional.engines import Finder

MARGIN = 8  # neighbours searched beyond k, among which float32 may have chosen wrongly
PAIR_BYTES = 2**28  # products of pairs that are held at once on a GPU
MOST = 1024  # neighbours searched where many are equally near
TIE = 1e-6  # similarities that float32 may take for equal
CHUNK = 2**16  # queries searched at a time

Lists = tuple[Tensor, Tensor]  # indices and float64 similarities of neighbours, nearest first


def no_lists(queries: int, device: torch.device | str = "cpu") -> Lists:
    """Return the lists of queries before any block was searched."""
    return (
        torch.empty(queries, 0, dtype=torch.int64, device=device),
        torch.empty(queries, 0, dtype=torch.float64, device=device),
    )


def add_block(
    lists: Lists,
    queries: Tensor,
    block: Tensor,
    places: Tensor,
    k: int,
    find: Finder,
    exact: Callable[[], Finder] | None = None,
) -> Lists:
    """Search a block for the queries' neighbours, and keep the k nearest of all blocks so far.

    Args:
        lists: What was found before, indices and similarities, (Q, m) each.
        queries: L2-normalised float32 rows, on the device of all other tensors, (Q, D).
        block: Likewise, (G, D).
        places: Index of each row of the block among all images, rising, (G,).
        k: Number of neighbours.
        find: Searches the block.
        exact: Gives what searches it exactly where ``find`` does not; None where it does.

    Returns:
        Nearest first, the lower index first among equals, (Q, min(k, m + G)) each.
    """
    parts = []
    for chunk, known, known_similarity in zip(
        *(part.split(CHUNK) for part in (queries, *lists)), strict=True
    ):
        found = find(chunk, min(k + MARGIN, len(block)))
        short = (found < 0).any(dim=1)
        if exact is not None and short.any():
            found[short] = exact()(chunk[short], found.shape[1])
        found, similarity = _nearest_of(chunk, block, found, k, None if exact else find)
        parts.append(
            _first(
                torch.cat([known, places[found]], dim=1),
                torch.cat([known_similarity, similarity], dim=1),
                k,
            )
        )
    indices, similarity = (torch.cat(part) for part in zip(*parts, strict=True))
    return indices, similarity


def entry_dots(
    rows: Tensor, others: Tensor, indptr: NDArray[Any], columns: NDArray[Any]
) -> NDArray[np.float64]:
    """Return the dot products of rows (n, D) with the others (m, D) that each row lists.

    In float64, and so that equal pairs give equal products to the last bit.

    Args:
        rows: On the CPU, or on a GPU, which then computes.
        others: On the same device.
        indptr: Where each row's list begins and ends in ``columns``, (n + 1,).
        columns: Rows of ``others``, (E,).

    Returns:
        Products, (E,).
    """
    if rows.is_cuda:
        lengths, ends = torch.from_numpy(np.diff(indptr)), torch.from_numpy(columns).long()
        starts = torch.arange(len(rows)).repeat_interleave(lengths)
        dots = pair_dots(rows, others, starts.to(rows.device), ends.to(rows.device))
        return dots.cpu().numpy()
    left, right = (tensor.detach().float().contiguous().numpy() for tensor in (rows, others))
    # One type of each, for one compiled loop.
    indptr, columns = indptr.astype(np.int64, copy=False), columns.astype(np.int32, copy=False)
    products = np.empty(len(columns))
    over_rows(
        partial(dot_loop, left, right, indptr, columns, products), range(len(left)), chunk=256
    )
    return products


def pair_dots(rows: Tensor, others: Tensor, left: Tensor, right: Tensor) -> Tensor:
    """Return the dot products of the pairs (left, right), as `entry_dots`, on a GPU.

    Args:
        rows: (n, D).
        others: (m, D).
        left: Rows, (E,).
        right: Rows of ``others``, (E,).

    Returns:
        Products, (E,) float64.
    """
    products = torch.empty(len(left), dtype=torch.float64, device=rows.device)
    size = max(1, PAIR_BYTES // (8 * max(1, rows.shape[1])))
    for start in range(0, len(left), size):
        # As many pairs each time, the last anew if need be: how a GPU adds up depends on the shape.
        start = max(0, min(start, len(left) - size))
        some = slice(start, start + size)
        pairs = rows[left[some]].double() * others[right[some]].double()
        products[some] = pairs.sum(dim=1)
    return products


def _nearest_of(
    queries: Tensor, block: Tensor, found: Tensor, k: int, find: Finder | None
) -> tuple[Tensor, Tensor]:
    """Order what was found for some queries in a block, and keep the first k.

    Of many images that are equally near, as duplicates are, an engine has returned any. Where the
    k-th is no nearer than the last one returned, more are searched, until all equals are there or
    ``MOST`` were searched: if the features of thousands are equal, it does not matter which.

    Args:
        queries: (q, D).
        block: (G, D).
        found: Indices in the block, more than k if there are, (q, m).
        k: Number of neighbours.
        find: Searches the block for more; None leaves it at what was found.

    Returns:
        Indices and similarities, (q, min(k, m)) each.
    """
    similarity = similarity_of(queries, block, found)
    kept, kept_similarity = _first(found, similarity, k)
    tied = kept_similarity[:, -1] <= similarity.amin(dim=1) + TIE
    wanted = min(2 * found.shape[1], len(block))
    if find is None or found.shape[1] == len(block) or wanted > MOST or not tied.any():
        return kept, kept_similarity
    more = find(queries[tied], wanted)
    kept[tied], kept_similarity[tied] = _nearest_of(queries[tied], block, more, k, find)
    return kept, kept_similarity


def similarity_of(queries: Tensor, block: Tensor, found: Tensor) -> Tensor:
    """Return the float64 dot products of each query with what was found for it, (n, k)."""
    if queries.is_cuda:
        rows = torch.arange(len(found), device=found.device).repeat_interleave(found.shape[1])
        return pair_dots(queries, block, rows, found.flatten()).view(found.shape)
    indptr = np.arange(0, found.numel() + 1, found.shape[1])
    columns = found.numpy().ravel()
    return torch.from_numpy(entry_dots(queries, block, indptr, columns)).view(found.shape)


def _first(indices: Tensor, similarity: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Keep the k most similar of each row, the lower index first among equals."""
    indices, order = indices.sort(dim=1)
    similarity, order = similarity.gather(1, order).sort(dim=1, descending=True, stable=True)
    return indices.gather(1, order)[:, :k], similarity[:, :k]


# The processor may add several terms at a time; their order is the same at every call.
@partial(compiled, fastmath={"reassoc", "contract", "nsz"})
def dot_loop(
    rows: NDArray[np.float32],
    others: NDArray[np.float32],
    indptr: NDArray[np.int64],
    columns: NDArray[np.int32],
    products: NDArray[np.float64],
    start: int,
    stop: int,
) -> None:
    """Fill in the products of some rows' entries."""
    for row in range(start, stop):
        left = rows[row]
        for entry in range(indptr[row], indptr[row + 1]):
            right = others[columns[entry]]
            total = 0.0
            for place in range(len(left)):
                total += np.float64(left[place]) * np.float64(right[place])
            products[entry] = total
