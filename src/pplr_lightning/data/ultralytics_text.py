"""Text that Ultralytics writes of a tracked video, a file for each frame."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from lightning.pytorch.utilities import rank_zero_warn

from pplr_lightning.data.boxes import UNKNOWN, Row
from pplr_lightning.data.files import read_utf8
from pplr_lightning.data.video import Frames, frame_number

COLUMNS = "class, x and y of the centre, width, height[, confidence], id"


def ultralytics_rows(path: Path, frames: Frames) -> Iterator[Row]:
    """Yields the boxes of a folder of `model.track(video, save_txt=True)`.

    A file's name ends with the number of the frame; a line is `class xc yc w h [confidence] id`, in
    fractions of the frame. Boxes without an id, of people who are not followed yet, are left out,
    with a warning.

    Args:
        path: The folder `labels`.
        frames: The video, for the sizes of its frames.

    Raises:
        ValueError: The folder holds no such files, or those of two videos; a line is no such box,
            or none has an id; a frame is not there.
    """
    files: dict[int, Path] = {}
    for file in sorted(path.glob("*.txt")):
        number = frame_number(file)
        if files.setdefault(number, file) != file:
            raise ValueError(
                f"{files[number]} and {file} are both of frame {number}: give each video a folder "
                "of its own"
            )
    if not files:
        raise ValueError(f"{path}: the folder holds no .txt; give the folder labels of a run")
    lines = [
        (f"{files[number]}, line {line}", number, words)
        for number in sorted(files)
        for line, text in enumerate(read_utf8(files[number]).splitlines(), 1)
        if (words := text.split())
    ]
    confident = any(len(words) == 7 for _, _, words in lines)  # in all lines or in none
    sizes = frames.sizes(sorted({number for _, number, _ in lines}))
    without_id = 0
    for where, number, words in lines:
        if not 5 <= len(words) <= 7:
            raise ValueError(
                f"{where}: {len(words)} columns, where a box has {COLUMNS}; of segments, poses and "
                "oriented boxes there are other files"
            )
        if len(words) == 5 or (len(words) == 6 and (confident or not _whole(words[5]))):
            without_id += 1
            continue
        try:
            kind, *box, track = (float(word) for word in words)
        except ValueError as error:
            raise ValueError(f"{where}: {error}; a box is {COLUMNS}") from error
        x, y, width, height = box[:4]
        if not all(abs(value) <= 2 for value in box[:4]):
            raise ValueError(f"{where}: {' '.join(words[1:5])} are no fractions of the frame")
        frame_width, frame_height = sizes[number]
        pixels = ((x - width / 2) * frame_width, (y - height / 2) * frame_height)
        yield Row(
            where,
            number,
            track,
            (*pixels, width * frame_width, height * frame_height),
            confidence=box[4] if confident else UNKNOWN,
            kind=kind,
            person=0,
        )
    if without_id == len(lines):
        raise ValueError(f"{path}: no box has an id: write them by model.track(..., save_txt=True)")
    if without_id:
        rank_zero_warn(f"{path}: {without_id:,} of {len(lines):,} boxes have no id: left out")


def _whole(word: str) -> bool:
    return re.fullmatch(r"-?\d+(\.0*)?", word) is not None
