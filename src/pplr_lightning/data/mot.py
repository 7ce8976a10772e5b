"""Boxes that a tracker has followed, as the MOT challenge writes them."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pplr_lightning.data.datasets import read_utf8

COLUMNS = "frame, id, left, top, width, height[, confidence[, class, ...]]"
UNKNOWN = -1  # confidence or class that a file does not say
MOST = 10**9  # frames and ids


@dataclass(frozen=True)
class Boxes:
    """M boxes, by frame and then as in their file.

    Attributes:
        frame: Numbers of frames, (M,) int64.
        track: What the tracker took for one person, (M,) int64.
        box: Left, top, width and height in pixels, of which the first is 0, (M, 4) float64.
    """

    frame: NDArray[np.int64]
    track: NDArray[np.int64]
    box: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.frame)

    def at(self, rows: NDArray[Any]) -> Boxes:
        """Picks boxes by number or mask."""
        return Boxes(*(getattr(self, field.name)[rows] for field in fields(self)))


def read_mot(path: Path, *, min_confidence: float = 0.0, classes: tuple[int, ...] = (1,)) -> Boxes:
    """Reads a file of the MOT challenge: results of a tracker, or `gt.txt`.

    A line is a box: `frame, id, left, top, width, height, confidence, ...`, between commas or
    blanks. As the challenge counts pixels from 1, so does the file.

    Args:
        path: The file.
        min_confidence: Boxes of this confidence or less are left out; -1, which stands for none, is
            kept. Ground truth marks with 0 what is not to be counted.
        classes: Boxes of other classes are left out, where the file names classes, as ground truth
            of nine columns does: 1 is a pedestrian.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: A line is no box, a track is twice in a frame, or no box is left.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file; give the tracker's results")
    rows, seen = [], set()
    for number, line in enumerate(read_utf8(path).splitlines(), 1):
        if not line.strip():
            continue
        *row, confidence, kind = _parse(line, f"{path}, line {number}")
        if (confidence != UNKNOWN and confidence <= min_confidence) or kind not in (
            UNKNOWN,
            *classes,
        ):
            continue
        key = (row[0], row[1])
        if key in seen:
            raise ValueError(
                f"{path}, line {number}: a second box of track {row[1]:g} in frame {row[0]:g}; a "
                "track is one person"
            )
        seen.add(key)
        rows.append(row)
    if not rows:
        raise ValueError(f"{path}: holds no box above a confidence of {min_confidence:g}")
    values = np.array(rows)
    values = values[np.argsort(values[:, 0], kind="stable")]
    values[:, 2:4] -= 1
    return Boxes(values[:, 0].astype(np.int64), values[:, 1].astype(np.int64), values[:, 2:])


def _parse(line: str, where: str) -> list[float]:
    """Reads frame, id, the four numbers of the box, confidence and class."""
    words = re.split(r"\s*,\s*|\s+", line.strip().rstrip(","))
    if len(words) < 6:
        raise ValueError(f"{where}: {len(words)} columns, where a box has {COLUMNS}")
    try:
        values = [float(word) for word in words[:9]]
    except ValueError as error:
        raise ValueError(f"{where}: {error}; a box is {COLUMNS}") from error
    if not all(map(math.isfinite, values)):
        raise ValueError(f"{where}: a number that is not finite; a box is {COLUMNS}")
    frame, track, _, _, width, height = values[:6]
    for name, value in (("frame", frame), ("id", track)):
        if not value.is_integer() or value < 0 or value > MOST:
            known = "; an id of -1 is of a detector: let a tracker follow its boxes first"
            raise ValueError(
                f"{where}: the {name} {value:g} is no whole number of 0 to {MOST:,}"
                + (known if name == "id" and value == UNKNOWN else "")
            )
    if width <= 0 or height <= 0:
        raise ValueError(f"{where}: a box of {width:g} x {height:g}: give width and height")
    # Of results the columns behind the confidence are a place in the world.
    confidence = values[6] if len(values) > 6 else UNKNOWN
    kind = values[7] if len(words) in (8, 9) else UNKNOWN
    return [*values[:6], confidence, kind]
