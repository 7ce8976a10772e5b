"""Nearest neighbours of L2-normalised features."""

from __future__ import annotations

import functools
import warnings
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pplr_lightning.functional.checks import check_count, check_features
from pplr_lightning.functional.compiled import compiled_sum, over_rows
from pplr_lightning.functional.engines import Finder, choose_engine, open_finder
from pplr_lightning.functional.sharding import Share

MARGIN = 8  # neighbours searched beyond k, among which float32 may have chosen wrongly
MOST = 1024  # neighbours searched where many are equally near
TIE = 1e-6  # similarities that float32 may take for equal
CHUNK = 2**16  # queries searched at a time
APPROXIMATE_FROM = 50_000  # images; fewer are searched exactly whatever the index
SAMPLE = 1000  # queries that the recall of an approximate search is measured on


@torch.no_grad()
def nearest_neighbors(
    features: Tensor, k: int, *, backend: str = "auto", index: str = "flat", probes: int = 64
) -> Tensor:
    """Find the k most similar images of every image, by cosine similarity.

    The search runs in float32, with a few neighbours to spare; those are ordered by their dot
    product in float64, the lower index first among equals, so that backends agree. An image's
    duplicates of lower index stand before the image itself.

    Args:
        features: L2-normalised rows, (N, D).
        k: Number of neighbours, **the image itself included**, 1 <= k <= N.
        backend: ``faiss`` is FAISS on the GPU where there is one and the FAISS build can use it,
            else on the CPU; ``faiss-gpu`` insists on the GPU; ``torch`` needs no FAISS and uses
            the GPU if there is one; ``auto`` takes FAISS on the GPU, torch on the GPU, FAISS on
            the CPU or torch on the CPU, the first of them that is possible.
        index: ``flat`` is exact. ``ivf`` searches 50,000 and more images approximately, with
            FAISS's inverted file of 4·√N cells; a warning states the recall, measured on 1,000
            images. A few per cent less already change the clusters. Of several processes each
            one's images are a file of their own, so that what is found depends on their number.
        probes: Cells that ``ivf`` searches for each image.

    Returns:
        Indices of the neighbours, nearest first, (N, k) int64, on the device of ``features``.

    Raises:
        ValueError: ``features`` are not 2-D, not finite or not normalised, ``k`` is out of range,
            or the backend or index is unknown or cannot run here.
    """
    check_features(features)
    check_count("k", k, len(features))
    check_count("probes", probes)
    rows, share = features.cpu(), Share(len(features))
    found = search(rows, k, share, backend=backend, index=index, probes=probes)
    if is_approximate(index, share):
        report_recall(recall(rows, found, share, backend=backend))
    return found.to(features.device)


def search(
    features: Tensor,
    k: int,
    share: Share,
    *,
    backend: str = "auto",
    index: str = "flat",
    probes: int = 64,
    only: Tensor | None = None,
) -> Tensor:
    """Find the k most similar of all N images for this process's images.

    Args:
        features: L2-normalised CPU rows of this process, (n, D).
        k: Number of neighbours, the image itself included, 1 <= k <= N.
        share: The rows of this process among the N.
        backend: As for `nearest_neighbors`.
        index: As for `nearest_neighbors`; nothing is measured here.
        probes: As for `nearest_neighbors`.
        only: Indices of those of the n images that are searched for; None for all.

    Returns:
        Indices in 0 to N - 1, nearest first, (n, k) int64 on the CPU.
    """
    engine = choose_engine(backend, index)
    gallery = features.detach().float().contiguous()
    queries = gallery if only is None else gallery[only]
    indices = torch.empty(len(queries), 0, dtype=torch.int64)
    similarity = torch.empty(len(queries), 0, dtype=torch.float64)
    # A block is another process's share, or a part of it.
    for start, block in share.blocks(gallery, whole=index == "ivf"):
        approximate = index == "ivf" and len(block) >= APPROXIMATE_FROM
        find = open_finder(engine, block, probes if approximate else None)
        exact = functools.cache(lambda block=block: open_finder(engine, block))
        parts = []
        for chunk, known, known_similarity in zip(
            *(part.split(CHUNK) for part in (queries, indices, similarity)), strict=True
        ):
            found = find(chunk, min(k + MARGIN, len(block)))
            short = (found < 0).any(dim=1)
            if short.any():
                found[short] = exact()(chunk[short], found.shape[1])
            found, new_similarity = _nearest_of(
                chunk, block, found, k, None if approximate else find
            )
            parts.append(
                _first(
                    torch.cat([known, found + start], dim=1),
                    torch.cat([known_similarity, new_similarity], dim=1),
                    k,
                )
            )
        indices, similarity = (torch.cat(part) for part in zip(*parts, strict=True))
    return indices


def is_approximate(index: str, share: Share) -> bool:
    """Tell whether an index searches so many images approximately."""
    return index == "ivf" and share.largest >= APPROXIMATE_FROM


def recall(features: Tensor, neighbors: Tensor, share: Share, *, backend: str = "auto") -> float:
    """Measure which share of the exact neighbours a search has found, on a sample of all images.

    Args:
        features: L2-normalised CPU rows of this process, (n, D).
        neighbors: What was found for them, (n, k).
        share: The rows of this process among the N.
        backend: As for `nearest_neighbors`; searches the sample exactly.

    Returns:
        The same on every process, in [0, 1].
    """
    step = max(1, share.total // SAMPLE)
    rows = torch.arange(min(-share.start % step, len(features)), len(features), step)
    exact = search(features, neighbors.shape[1], share, backend=backend, only=rows)
    hits = (neighbors[rows][:, :, None] == exact[:, None, :]).sum()
    found, expected = share.sum(torch.tensor([int(hits), exact.numel()])).tolist()
    return found / expected


def report_recall(value: float) -> None:
    """Warn that neighbours are approximate, and how good they are."""
    warnings.warn(
        f"approximate neighbours: a recall of {value:.4f} on a sample; more probes find more, "
        "index='flat' finds all",
        stacklevel=4,  # past no_grad's wrapper
    )


def entry_dots(
    rows: Tensor, others: Tensor, indptr: NDArray[Any], columns: NDArray[Any]
) -> NDArray[np.float64]:
    """Return the dot products of rows (n, D) with the others (m, D) that each row lists.

    In float64, and so that equal pairs give equal products to the last bit.

    Args:
        rows: On the CPU.
        others: On the CPU.
        indptr: Where each row's list begins and ends in ``columns``, (n + 1,).
        columns: Rows of ``others``, (E,).

    Returns:
        Products, (E,).
    """
    left, right = (tensor.detach().float().contiguous().numpy() for tensor in (rows, others))
    # One type of each, for one compiled loop.
    indptr, columns = indptr.astype(np.int64, copy=False), columns.astype(np.int32, copy=False)
    products = np.empty(len(columns))

    def work(start: int, stop: int) -> None:
        _entry_dots(left, right, indptr, columns, start, stop, products)

    over_rows(work, len(left), chunk=256)
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
    similarity = _similarity_of(queries, block, found)
    kept, kept_similarity = _first(found, similarity, k)
    tied = kept_similarity[:, -1] <= similarity.amin(dim=1) + TIE
    wanted = min(2 * found.shape[1], len(block))
    if find is None or found.shape[1] == len(block) or wanted > MOST or not tied.any():
        return kept, kept_similarity
    more = find(queries[tied], wanted)
    kept[tied], kept_similarity[tied] = _nearest_of(queries[tied], block, more, k, find)
    return kept, kept_similarity


def _similarity_of(queries: Tensor, block: Tensor, found: Tensor) -> Tensor:
    """Return the float64 dot products of each query with what was found for it, (n, k)."""
    indptr = np.arange(0, found.numel() + 1, found.shape[1])
    columns = found.numpy().ravel()
    return torch.from_numpy(entry_dots(queries, block, indptr, columns)).view(found.shape)


def _first(indices: Tensor, similarity: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Keep the k most similar of each row, the lower index first among equals."""
    indices, order = indices.sort(dim=1)
    similarity, order = similarity.gather(1, order).sort(dim=1, descending=True, stable=True)
    return indices.gather(1, order)[:, :k], similarity[:, :k]


@compiled_sum
def _entry_dots(
    rows: NDArray[np.float32],
    others: NDArray[np.float32],
    indptr: NDArray[np.int64],
    columns: NDArray[np.int32],
    start: int,
    stop: int,
    products: NDArray[np.float64],
) -> None:
    for row in range(start, stop):
        left = rows[row]
        for entry in range(indptr[row], indptr[row + 1]):
            right = others[columns[entry]]
            total = 0.0
            for place in range(len(left)):
                total += np.float64(left[place]) * np.float64(right[place])
            products[entry] = total
