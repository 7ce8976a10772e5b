"""Nearest neighbours of L2-normalised features."""

from __future__ import annotations

import functools
import warnings

import torch
from torch import Tensor

from pplr_lightning.functional.checks import check_count, check_features
from pplr_lightning.functional.engines import choose_engine, open_finder
from pplr_lightning.functional.neighbor_lists import add_block, no_lists
from pplr_lightning.functional.sharding import Share

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
    share = Share(len(features))
    found = search(features, k, share, backend=backend, index=index, probes=probes)
    if is_approximate(index, share):
        found_share = recall(features, found, share, backend=backend)
        warnings.warn(
            f"approximate neighbours: a recall of {found_share:.4f} on a sample; more probes find "
            "more, index='flat' finds all",
            stacklevel=3,  # past no_grad's wrapper
        )
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
        features: L2-normalised rows of this process, (n, D); on the CPU where there are several
            processes. On a GPU all is done there.
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
    lists = no_lists(len(queries), queries.device)
    # A block is another process's share, or a part of it.
    for start, block in share.blocks(gallery, whole=index == "ivf"):
        places = torch.arange(start, start + len(block), device=block.device)
        if index == "ivf" and len(block) >= APPROXIMATE_FROM:
            find = open_finder(engine, block, probes)
            exact = functools.cache(lambda block=block: open_finder(engine, block))
        else:
            find, exact = open_finder(engine, block), None
        lists = add_block(lists, queries, block, places, k, find, exact)
    return lists[0].cpu()


def is_approximate(index: str, share: Share) -> bool:
    """Tell whether an index searches so many images approximately."""
    return index == "ivf" and share.largest >= APPROXIMATE_FROM


def recall(features: Tensor, neighbors: Tensor, share: Share, *, backend: str = "auto") -> float:
    """Measure which share of the exact neighbours a search has found, on a sample of all images.

    Args:
        features: L2-normalised rows of this process, as for `search`, (n, D).
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
