"""Scores of query-to-gallery retrieval: mAP, mINP and CMC."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pplr_lightning.functional.checks import check_shape
from pplr_lightning.functional.compiled import compiled, over_rows

CHUNK_BYTES = 2**25  # float64 distances of the queries that are scored at once
THREAD_ROWS = 16  # queries that a thread scores at once


@torch.no_grad()
def retrieval_metrics(
    distance: Tensor,
    query_ids: Tensor,
    gallery_ids: Tensor,
    query_cameras: Tensor,
    gallery_cameras: Tensor,
    *,
    topk: Sequence[int] = (1, 5, 10),
) -> dict[str, float]:
    """Score how well each query ranks the gallery images of its identity.

    The protocol of Market-1501 (Zheng et al., ICCV 2015): gallery images of the query's identity
    *and* camera are left out, and so is junk, identity -1. Queries without a match left are not
    counted. mAP is the mean of scikit-learn's average precision (equal distances share a
    threshold); rank-k the share of queries whose first match is among the k nearest (the CMC curve;
    of equal distances the lowest gallery index comes first); mINP the mean of the number of
    matches over the rank of the last one (Ye et al., TPAMI 2021).

    Distances are scored on the CPU, wherever they come from, in their own precision and some
    queries at a time.

    Args:
        distance: Smaller is nearer, (Q, G).
        query_ids: Identities, whole numbers, (Q,).
        gallery_ids: Identities, -1 is junk, (G,).
        query_cameras: Cameras, whole numbers, (Q,).
        gallery_cameras: Cameras, (G,).
        topk: The k of rank-k, each >= 1; beyond the end of the gallery rank-k is 1.

    Returns:
        ``mAP``, ``mINP`` and ``rank-k`` for each k, in [0, 1].

    Raises:
        ValueError: The shapes do not fit, ``distance`` is not finite, ``topk`` is empty or holds
            a value below 1, or no query has a match.
    """
    expected = len(query_ids), len(gallery_ids)
    check_shape("distance", distance, expected, "give one id per row and per column")
    check_shape("query_cameras", query_cameras, tuple(query_ids.shape))
    check_shape("gallery_cameras", gallery_cameras, tuple(gallery_ids.shape))
    gallery = GalleryIndex(gallery_ids, gallery_cameras)
    scores = [
        gallery.score(distance[block], query_ids[block], query_cameras[block])
        for block in query_blocks(*distance.shape)
    ]
    return summarize_scores(torch.cat(scores), topk)


def query_blocks(queries: int, gallery: int) -> list[slice]:
    """Cut queries into blocks whose distances to the gallery take ``CHUNK_BYTES``, or one row.

    A matrix product may round a row differently among other rows. Whoever computes the distances
    in these blocks gets the same ones, however the blocks are dealt out to processes.

    Args:
        queries: Number of queries, Q.
        gallery: Number of gallery images, G.

    Returns:
        Consecutive slices that cover 0 to Q.

    Raises:
        ValueError: There are no queries or no gallery.
    """
    if not queries * gallery:
        raise ValueError(
            f"distance must not be empty, got shape {(queries, gallery)}; check the data set"
        )
    rows = max(1, CHUNK_BYTES // (8 * gallery))
    return [slice(start, min(start + rows, queries)) for start in range(0, queries, rows)]


class GalleryIndex:
    """The images of a gallery by identity: a query's matches are found without a search.

    Args:
        ids: Identities, -1 is junk, (G,).
        cameras: Cameras, (G,).
        files: Numbers of the images' files, where queries may be among them, (G,).
        draw: Leaves one image of each identity, drawn at random by this seed: of a query's own
            identity one that counts as a match (single gallery shot, Li et al., CVPR 2014). None
            leaves all.
        own_only: Take ``files`` the other way round: a query's matches are of its own number alone.
    """

    def __init__(
        self,
        ids: Tensor,
        cameras: Tensor,
        files: Tensor | None = None,
        *,
        draw: int | None = None,
        own_only: bool = False,
    ) -> None:
        self._own_only = own_only
        self._files = np.full(len(ids), -1) if files is None else _whole_numbers(files)
        identities = _whole_numbers(ids)
        self._cameras = _whole_numbers(cameras)
        # Of each identity the lowest number is drawn. The old generator's numbers never change.
        size = 0 if draw is None else len(ids)
        self._numbers = np.random.RandomState(draw or 0).rand(size)
        left_out = identities == -1
        if draw is not None:
            order = np.lexsort((self._numbers, identities))
            left_out[order[1:]] |= np.diff(identities[order]) == 0
        self._junk = np.flatnonzero(left_out)
        # Junk is in no identity's list: a query of identity -1 has no match.
        images = np.flatnonzero(identities != -1)
        self._images = images[np.argsort(identities[images], kind="stable")]
        self._identities = identities[self._images]

    def score(
        self,
        distance: Tensor,
        query_ids: Tensor,
        query_cameras: Tensor,
        query_files: Tensor | None = None,
    ) -> Tensor:
        """Score some queries, each by itself.

        Args:
            distance: Distances to the whole gallery, (q, G).
            query_ids: Identities, (q,).
            query_cameras: Cameras, (q,).
            query_files: Numbers of the queries' files, (q,): a query does not match itself.

        Returns:
            Scores for `summarize_scores`, (q, 4) float64 on the CPU. The columns: average
            precision; rank of the first match, from 1, 0 for a query without a match; number of
            matches over the rank of the last; number of distances that are NaN or Inf, of which
            one takes the other scores away.
        """
        rows = distance.detach().cpu()
        if rows.dtype != torch.float32:  # float64 holds the values of all other types
            rows = rows.double()
        array = rows.contiguous().numpy()
        ids, cameras = _whole_numbers(query_ids), _whole_numbers(query_cameras)
        start = np.searchsorted(self._identities, ids, side="left")
        stop = np.searchsorted(self._identities, ids, side="right")
        own = np.full(len(ids), -2) if query_files is None else _whole_numbers(query_files)
        gallery = (
            self._images,
            self._cameras,
            self._files,
            self._junk,
            self._numbers,
            self._own_only,
        )
        work = partial(score_rows, array, cameras, own, start, stop, *gallery)
        scores = over_rows(work, range(len(array)), chunk=THREAD_ROWS)
        return torch.from_numpy(np.concatenate(scores))


def summarize_scores(scores: Tensor, topk: Sequence[int]) -> dict[str, float]:
    """Average the scores of all queries.

    Args:
        scores: What `GalleryIndex.score` returned, in the order of the queries, (Q, 4).
        topk: The k of rank-k, each >= 1.

    Returns:
        ``mAP``, ``mINP`` and ``rank-k`` for each k, in [0, 1].

    Raises:
        ValueError: A distance was not finite, ``topk`` is empty or holds a value below 1, or no
            query has a match.
    """
    if not len(topk) or min(topk) < 1:
        raise ValueError(f"topk must hold ranks of 1 or more, got {tuple(topk)}; try (1, 5, 10)")
    precision, first, inverse, broken = scores.numpy().T
    if broken.any():
        raise ValueError(
            f"distance must be finite, got {int(broken.sum())} values of NaN or Inf; check the "
            "features"
        )
    counted = first > 0
    if not counted.any():
        raise ValueError(
            f"no query can be counted, got {len(scores)} queries of which none has its "
            "identity in the gallery under another camera; check the ids and cameras"
        )
    # numpy's sums, unlike torch's, do not depend on the number of threads.
    result = {"mAP": float(precision[counted].mean()), "mINP": float(inverse[counted].mean())}
    result.update({f"rank-{k}": float((first[counted] <= k).mean()) for k in topk})
    return result


def _whole_numbers(values: Tensor) -> NDArray[np.int64]:
    return values.detach().cpu().long().numpy()


@compiled
def score_rows(
    distance: NDArray[Any],
    query_cameras: NDArray[np.int64],
    query_files: NDArray[np.int64],
    start: NDArray[np.int64],
    stop: NDArray[np.int64],
    images: NDArray[np.int64],
    cameras: NDArray[np.int64],
    files: NDArray[np.int64],
    junk: NDArray[np.int64],
    numbers: NDArray[np.float64],
    own_only: bool,
    first: int,
    last: int,
) -> NDArray[np.float64]:
    """Return the scores of some rows; their identities' images are ``images[start:stop]``.

    Nothing is sorted: how many images are nearer than a match is counted, which the compiler turns
    into a few instructions per dozen of images. Sorting pays from a thousand matches per query on.
    """
    scores = np.zeros((last - first, 4))
    row = np.empty(distance.shape[1], distance.dtype)
    for q in range(first, last):
        row[:] = distance[q]
        broken = _count_infinite(row)
        if broken:
            scores[q - first, 3] = broken
            continue
        # What is left out ranks behind all else, where it changes nothing.
        row[junk] = np.inf
        matches = images[start[q] : stop[q]]  # ascending
        same = (cameras[matches] == query_cameras[q]) | (
            (files[matches] == query_files[q]) != own_only
        )
        row[matches[same]] = np.inf
        matches = matches[~same]
        if not len(matches):
            continue
        if len(numbers):  # a single shot
            row[matches] = np.inf
            drawn = np.argmin(numbers[matches])
            matches = matches[drawn : drawn + 1]
            row[matches] = distance[q][matches]
        to_match = row[matches]
        nearest = farthest = 0
        precision = 0.0
        for m in range(len(matches)):
            # The share of matches among all images as near as this match, or nearer.
            precision += _count_within(to_match, to_match[m]) / _count_within(row, to_match[m])
            if to_match[m] < to_match[nearest]:  # the lowest index among equals
                nearest = m
            if to_match[m] >= to_match[farthest]:  # the highest among equals
                farthest = m
        scores[q - first, 0] = precision / len(matches)
        scores[q - first, 1] = _rank(row, matches[nearest])
        scores[q - first, 2] = len(matches) / _rank(row, matches[farthest])
    return scores


@compiled
def _count_infinite(values: NDArray[Any]) -> Any:
    """Count what is NaN or Inf."""
    count = np.uint32(0)
    for i in range(len(values)):
        count = np.uint32(count + np.uint32(not np.isfinite(values[i])))
    return count


@compiled
def _count_within(values: NDArray[Any], limit: Any) -> Any:
    """Count what is not above a limit. 32 bits, like the values, fill the processor's vectors."""
    count = np.uint32(0)
    for i in range(len(values)):
        count = np.uint32(count + np.uint32(values[i] <= limit))
    return count


@compiled
def _rank(values: NDArray[Any], index: int) -> Any:
    """Return the rank from 1 of one value; lower indices come first among equals."""
    beyond = values[index + 1 :]
    equals = np.uint32(0)
    for i in range(len(beyond)):
        equals = np.uint32(equals + np.uint32(beyond[i] == values[index]))
    return _count_within(values, values[index]) - equals
