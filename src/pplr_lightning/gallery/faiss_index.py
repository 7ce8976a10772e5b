"""FAISS indexes of vectors that come in chunks: exact, or compressed with its recall measured."""

from __future__ import annotations

from typing import Any, Literal, cast

import numpy as np
from numpy.typing import NDArray

from pplr_lightning.functional.engines import require_faiss
from pplr_lightning.gallery.embeddings import Embeddings

PURPOSE = "a gallery's index"
WIDTHS = (4, 5, 6, 7, 8)  # dimensions that a code of one byte stands for, the first that divides D
TRAINED_FROM = 39 * 256  # vectors: FAISS's least for 256 codewords
ITERATIONS = 10  # of k-means for the codewords; FAISS's own 25 find no more neighbours
PER_CELL = 64  # vectors that a cell's centre is learned from
SAMPLE = 1000  # queries that recall is measured on
TOP = 10  # neighbours of recall@10
CHUNK = 65_536  # vectors copied at a time


Kind = Literal["flat", "ivfsq", "ivfpq"]


def exact_index(embeddings: Embeddings) -> Any:
    """Builds an index that compares a query with every vector, by inner product."""
    faiss = require_faiss(PURPOSE)
    index = faiss.IndexIDMap(faiss.IndexFlatIP(embeddings.vectors.shape[1]))
    add_vectors(index, embeddings, 0)
    return index


def in_memory(index: Any, ids: NDArray[np.int64]) -> Any:
    """Copies an `exact_index` of these ids that is mapped from its file, so that it can be changed.

    From the mapping, which lasts when another file has taken the name.
    """
    faiss = require_faiss(PURPOSE)
    copy = faiss.IndexIDMap(faiss.IndexFlatIP(index.d))
    for start in range(0, len(ids), CHUNK):
        chunk = ids[start : start + CHUNK]
        copy.add_with_ids(index.index.reconstruct_n(start, len(chunk)), chunk)
    return copy


def add_vectors(index: Any, embeddings: Embeddings, first: int) -> None:
    """Adds vectors under the ids `first`, `first` + 1, ...; all, or in case of an error none."""
    added = first
    try:
        for chunk in embeddings.chunks():
            index.add_with_ids(chunk, np.arange(added, added + len(chunk)))
            added += len(chunk)
    except Exception:
        index.remove_ids(np.arange(first, added))
        raise


def search_index(
    index: Any, queries: NDArray[np.float32], k: int, allowed: NDArray[np.int64] | None = None
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Finds the k largest inner products of each query (Q, D): these and their ids, (Q, k) each.

    Args:
        index: `exact_index` or `compressed_index` made it.
        queries: Need not be normalised.
        k: Where fewer are found, the ids behind the last are -1.
        allowed: Ids to search among; None for all.
    """
    if allowed is None:
        return cast(tuple[Any, Any], index.search(queries, k))
    faiss = require_faiss(PURPOSE)
    mask = np.zeros(1 + int(allowed.max(initial=0)), bool)
    mask[allowed] = True
    # Held until the search is over: FAISS keeps pointers to them.
    bits = np.packbits(mask, bitorder="little")
    selector = faiss.IDSelectorBitmap(bits)
    params = (
        faiss.SearchParametersIVF(sel=selector, nprobe=index.nprobe)
        if hasattr(index, "nprobe")
        else faiss.SearchParameters(sel=selector)
    )
    return cast(tuple[Any, Any], index.search(queries, k, params=params))


def read_vectors(
    index: Any, rows: NDArray[np.int64], ids: NDArray[np.int64]
) -> NDArray[np.float32]:
    """Reads vectors back, (n, D), by their places in the order of ids and by their ids.

    They are as they were, or what the codes of a compressed index keep.
    """
    faiss = require_faiss(PURPOSE)
    if isinstance(index, faiss.IndexIDMap):
        return cast(NDArray[np.float32], index.index.reconstruct_batch(rows))
    if index.direct_map.type != faiss.DirectMap.Hashtable:
        index.set_direct_map_type(faiss.DirectMap.Hashtable)  # where each id lies
    return cast(NDArray[np.float32], index.reconstruct_batch(ids))


def forget_places(index: Any) -> None:
    """Drops what `read_vectors` noted: neither removing images nor a file allows for it."""
    faiss = require_faiss(PURPOSE)
    if not isinstance(index, faiss.IndexIDMap):
        index.set_direct_map_type(faiss.DirectMap.NoMap)


def kind_within(limit: float, images: int, dimension: int) -> Kind:
    """Chooses the index that keeps most of N vectors (D,) in so many bytes of them.

    `flat` takes 4·N·D bytes, `ivfsq` N·D; it is `ivfpq` if neither is allowed.
    """
    if 4 * images * dimension <= limit:
        return "flat"
    return "ivfsq" if images * dimension <= limit else "ivfpq"


def compressed_index(
    embeddings: Embeddings, kind: Literal["ivfsq", "ivfpq"], *, probes: int
) -> tuple[Any, float]:
    """Builds an index of codes in cells and measures what it finds.

    Vectors lie in 4·√N cells by their nearest centre, each as a code of what is left of it: a byte
    for each of its D dimensions (`ivfsq`), or one for each 4 to 8 of them, learned together
    (`ivfpq`; Jégou et al., TPAMI 2011). A query is compared with those in the `probes` nearest
    cells.

    Returns:
        The index, and its recall@10 on a sample of its own images, each without itself.

    Raises:
        ValueError: There are too few vectors, or D does not divide into codes.
    """
    faiss = require_faiss(PURPOSE)
    images, dimension = embeddings.vectors.shape
    if images < TRAINED_FROM:
        raise ValueError(
            f"kind={kind!r} learns its codes from {TRAINED_FROM:,} images or more, got {images:,}: "
            "use 'flat'"
        )
    width = next((width for width in WIDTHS if dimension % width == 0), None)
    if kind == "ivfpq" and width is None:
        raise ValueError(
            f"kind='ivfpq' cannot cut vectors of {dimension} dimensions into codes of {WIDTHS[0]} "
            f"to {WIDTHS[-1]}: use 'ivfsq' or 'flat'"
        )
    cells = min(round(4 * images**0.5), images // 39)
    codes = "SQ8" if width is None or kind == "ivfsq" else f"PQ{dimension // width}"
    index = faiss.index_factory(dimension, f"IVF{cells},{codes}", faiss.METRIC_INNER_PRODUCT)
    if kind == "ivfpq":
        index.do_polysemous_training = False  # slow, and of use only to another kind of search
        index.pq.cp.niter = ITERATIONS
    rng = np.random.default_rng(0)
    learned = min(images, max(PER_CELL * cells, TRAINED_FROM))
    index.train(_rows(embeddings, np.sort(rng.choice(images, learned, replace=False))))
    index.nprobe = min(probes, cells)
    add_vectors(index, embeddings, 0)
    sample = np.sort(rng.choice(images, min(SAMPLE, images), replace=False))
    return index, _recall(index, embeddings, sample)


def _rows(embeddings: Embeddings, rows: NDArray[np.int64]) -> NDArray[np.float32]:
    """Picks vectors by ascending numbers, in one pass over the chunks."""
    picked, start = [], 0
    for chunk in embeddings.chunks():
        low, high = np.searchsorted(rows, (start, start + len(chunk)))
        picked.append(chunk[rows[low:high] - start])
        start += len(chunk)
    return np.concatenate(picked)


def _recall(index: Any, embeddings: Embeddings, sample: NDArray[np.int64]) -> float:
    """Measures the share of the 10 nearest others of the images `sample` that an index finds."""
    from faiss.contrib.exhaustive_search import knn_ground_truth

    queries = _rows(embeddings, sample)
    product = require_faiss(PURPOSE).METRIC_INNER_PRODUCT
    exact = knn_ground_truth(queries, embeddings.chunks(), TOP + 1, product, ngpu=0)[1]
    found = index.search(queries, TOP + 1)[1]
    hits = 0
    for own, right, candidates in zip(sample, exact, found, strict=True):
        wanted = [row for row in right if row != own][:TOP]
        given = [row for row in candidates if row != own][:TOP]
        hits += len(set(wanted) & set(given))
    return hits / (TOP * len(sample))
