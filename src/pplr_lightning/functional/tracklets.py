"""Tracklets that a tracker has let jump from one person to another, parted there."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pplr_lightning.functional.checks import check_count, check_finite, check_positive, check_shape
from pplr_lightning.functional.sharding import Share

SAME = 1e-9  # squared distance of unit vectors, of which rounding makes up less


@torch.no_grad()
def split_tracklets(
    features: Tensor,
    tracklets: Tensor,
    *,
    factor: float,
    frames: Tensor | None = None,
    window: int = 4,
    share: Share | None = None,
) -> Tensor:
    """Part tracklets where what is seen changes at once.

    Between two frames that follow each other in a tracklet let a be the mean of the last
    ``window`` frames before and b that of the first after, or of as many as there are, n and m.
    By how much two means explain these frames better than one (Ward, "Hierarchical grouping to
    optimize an objective function", 1963), over the variance that is usual:

        r_t = n m / (n + m) ||a - b||^2 / v,    v = median ||f_t - f_{t+1}||^2 / 2,

    the median over all frames that follow each other in any tracklet, few of which are jumps, but
    for those that are the same again, as of a video whose frames were doubled.
    Frames that vary by chance around one mean have an r_t of 1 on average, whatever n and m and
    the features are. A tracklet is parted where r_t is largest if that is above ``factor``, and its
    parts likewise, with windows that end at the cut. Windows are short because people turn and the
    light changes in the course of a walk.

    Args:
        features: L2-normalised rows, (N, D); on CPU, this process's where there are several.
        tracklets: Tracklet of each image, each of 0 to T - 1 at least once, (N,).
        factor: Largest r_t within a tracklet, above 0; at 1 most are parted.
        frames: Places of the images in time, compared within a tracklet alone; those of equal
            places, and all of them where it is None, come in the order of their rows, (N,).
        window: w, 1 or more.
        share: The rows of this process among the N; None where it has all.

    Returns:
        Tracklets 0 to T' - 1, T' >= T, ordered by tracklet and time, (N,) int64.

    Raises:
        ValueError: The shapes do not fit, ``features`` are not finite, or an option is out of
            range.

    Example:
        >>> angles = torch.tensor([0.0, 0.1, 0.0, 1.5, 1.6, 0.0, 0.1])
        >>> features = torch.stack([angles.cos(), angles.sin()], dim=1)
        >>> split_tracklets(features, torch.tensor([0, 0, 0, 0, 0, 1, 1]), factor=4)
        tensor([0, 0, 0, 1, 1, 2, 2])
    """
    check_positive(factor=factor)
    check_count("window", window)
    check_finite(features)
    share = share or Share(len(features))
    check_shape("tracklets", tracklets, (share.total,))
    order, starts = _in_time(tracklets, frames)
    divided = share.divide(len(starts) - 1)
    own = slice(int(starts[divided.start]), int(starts[divided.stop]))
    rows = _take(features, order[own], share)
    bounds = starts[divided.start : divided.stop + 1] - own.start
    usual = divided.gather(torch.from_numpy(_steps(rows, bounds)))
    cuts = np.zeros(len(rows), dtype=bool)
    usual = usual[usual > SAME]
    if len(usual):
        farthest = factor * float(usual.median()) / 2
        for start, stop in pairwise(bounds):
            for cut in _cuts(rows[start:stop], farthest, window):
                cuts[start + cut] = True
    begins = divided.gather(torch.from_numpy(cuts)).numpy().copy()
    begins[starts[:-1]] = True
    parts = np.empty(share.total, dtype=np.int64)
    parts[order] = np.cumsum(begins) - 1
    return torch.from_numpy(parts)


def _in_time(tracklets: Tensor, frames: Tensor | None) -> tuple[NDArray[np.int64], NDArray[Any]]:
    """Order images by tracklet and time; say where each tracklet begins, (T + 1,)."""
    numbers = tracklets.numpy()
    times = np.zeros_like(numbers) if frames is None else frames.numpy()
    order = np.lexsort((times, numbers))
    return order, np.searchsorted(numbers[order], np.arange(numbers.max(initial=-1) + 2))


def _take(features: Tensor, wanted: NDArray[np.int64], share: Share) -> NDArray[np.float64]:
    """Return rows of all processes, by their numbers among the N."""
    rows = np.empty((len(wanted), features.shape[1]))
    for start, block in share.blocks(features):
        here = (wanted >= start) & (wanted < start + len(block))
        rows[here] = block[torch.from_numpy(wanted[here] - start)].double().cpu().numpy()
    return rows


def _steps(rows: NDArray[np.float64], bounds: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return the squared distance of each frame from the one before it in its tracklet."""
    follows = np.ones(len(rows), dtype=bool)
    follows[bounds[:-1]] = False
    places = np.flatnonzero(follows)
    return np.square(rows[places] - rows[places - 1]).sum(axis=1)


def _cuts(rows: NDArray[np.float64], farthest: float, window: int) -> list[int]:
    """Return the frames of a tracklet at which a part begins, the first left out."""
    cuts, parts = [], [(0, len(rows))]
    sums = np.concatenate([np.zeros((1, rows.shape[1])), np.cumsum(rows, axis=0)])
    while parts:
        start, stop = parts.pop()
        if stop - start < 2:
            continue
        gaps = np.arange(start + 1, stop)
        low, high = np.maximum(gaps - window, start), np.minimum(gaps + window, stop)
        some, others = gaps - low, high - gaps
        before = (sums[gaps] - sums[low]) / some[:, None]
        after = (sums[high] - sums[gaps]) / others[:, None]
        apart = np.square(before - after).sum(axis=1) * some * others / (some + others)
        if apart.max() > farthest:
            cut = int(gaps[apart.argmax()])
            cuts.append(cut)
            parts += [(start, cut), (cut, stop)]
    return cuts
