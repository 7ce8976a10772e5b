"""The compiled loops that score queries by counting."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from pplr_lightning.functional.compiled import compiled


@compiled
def score_rows(
    distance: NDArray[Any],
    query_cameras: NDArray[np.int64],
    start: NDArray[np.int64],
    stop: NDArray[np.int64],
    images: NDArray[np.int64],
    cameras: NDArray[np.int64],
    junk: NDArray[np.int64],
) -> NDArray[np.float64]:
    """Score queries (q, G) whose identities' images are ``images[start:stop]``.

    What is returned: see `GalleryIndex.score`.

    Nothing is sorted: how many images are nearer than a match is counted, which the compiler turns
    into a few instructions per dozen of images. Sorting pays from a thousand matches per query on.
    """
    queries, gallery = distance.shape
    scores = np.zeros((queries, 4))
    row = np.empty(gallery, distance.dtype)
    for q in range(queries):
        row[:] = distance[q]
        broken = _count_infinite(row)
        if broken:
            scores[q, 3] = broken
            continue
        # What is left out ranks behind all else, where it changes nothing.
        row[junk] = np.inf
        matches = images[start[q] : stop[q]]  # ascending
        same = cameras[matches] == query_cameras[q]
        row[matches[same]] = np.inf
        matches = matches[~same]
        if not len(matches):
            continue
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
        scores[q, 0] = precision / len(matches)
        scores[q, 1] = _rank(row, matches[nearest])
        scores[q, 2] = len(matches) / _rank(row, matches[farthest])
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
