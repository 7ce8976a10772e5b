"""Text of the MOT challenge, of tracker results and of ground truth, and BoxMOT's."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from pplr_lightning.data.boxes import UNKNOWN, Row
from pplr_lightning.data.files import read_utf8

COLUMNS = "frame, id, left, top, width, height[, confidence[, class, ...]]"


def mot_rows(path: Path) -> Iterator[Row]:
    """Yields the boxes of a file of the MOT challenge: results of a tracker, or `gt.txt`.

    A line is a box: `frame, id, left, top, width, height, confidence, ...`, between commas or
    blanks. As the challenge counts pixels from 1, so does the file. Of nine columns, as of ground
    truth, the eighth is a class, 1 a pedestrian. BoxMOT's results (`tracks.txt`) have nine, too, of
    which the last is -1, where ground truth says how much is visible: it counts pixels and classes
    from 0.

    Raises:
        ValueError: A line is no box.
    """
    for number, line in enumerate(read_utf8(path).splitlines(), 1):
        if not line.strip():
            continue
        where = f"{path}, line {number}"
        words = re.split(r"\s*,\s*|\s+", line.strip().rstrip(","))
        if len(words) < 6:
            raise ValueError(f"{where}: {len(words)} columns, where a box has {COLUMNS}")
        try:
            values = [float(word) for word in words[:9]]
        except ValueError as error:
            raise ValueError(f"{where}: {error}; a box is {COLUMNS}") from error
        frame, track, left, top, width, height = values[:6]
        boxmot = len(words) == 9 and values[8] == UNKNOWN
        first = 0 if boxmot else 1
        yield Row(
            where,
            frame,
            track,
            (left - first, top - first, width, height),
            confidence=values[6] if len(values) > 6 else UNKNOWN,
            # Of results the columns behind the confidence are a place in the world.
            kind=values[7] if len(words) in (8, 9) else UNKNOWN,
            person=first,
        )
