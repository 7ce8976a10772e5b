"""A tracker's boxes, whichever program wrote them."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from pplr_lightning.data.box_table import box_rows, has_head
from pplr_lightning.data.boxes import UNKNOWN, Boxes, Row
from pplr_lightning.data.coco_video import coco_rows
from pplr_lightning.data.mot import mot_rows
from pplr_lightning.data.ultralytics_text import ultralytics_rows
from pplr_lightning.data.video import Frames

MOST = 10**9  # frames and ids


def read_boxes(
    path: Path,
    frames: Frames,
    *,
    min_confidence: float = 0.0,
    classes: tuple[int, ...] = (),
) -> Boxes:
    """Reads a tracker's boxes of one video.

    What they are written as is told by the name: a folder is of Ultralytics (`save_txt`), `.json`
    is COCO with tracks, `.parquet` and `.csv` with a head are tables, and all else is text as of
    the MOT challenge and BoxMOT.

    Args:
        path: The file or folder.
        frames: The video, whose frames' sizes or names some of them need.
        min_confidence: Boxes of this confidence or less are left out; -1, which stands for none, is
            kept. Ground truth marks with 0 what is not to be counted.
        classes: Boxes of other classes are left out, where the file names classes; by default all
            but persons.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: What is there is no box of a track, a track is twice in a frame, or no box is
            left.
    """
    rows, seen = [], set()
    for row in _reader(path, frames):
        if row.confidence != UNKNOWN and row.confidence <= min_confidence:
            continue
        if row.kind != UNKNOWN and row.kind not in (classes or (row.person,)):
            continue
        _check(row)
        key = (row.frame, row.track)
        if key in seen:
            raise ValueError(
                f"{row.where}: a second box of track {row.track:g} in frame {row.frame:g}; a track "
                "is one person"
            )
        seen.add(key)
        rows.append((*key, *row.box))
    if not rows:
        named = f"of the classes {' '.join(map(str, classes))}" if classes else "of a person"
        raise ValueError(
            f"{path}: holds no box {named} (--classes) above a confidence of {min_confidence:g}"
        )
    values = np.array(rows)
    values = values[np.argsort(values[:, 0], kind="stable")]
    return Boxes(values[:, 0].astype(np.int64), values[:, 1].astype(np.int64), values[:, 2:])


def _reader(path: Path, frames: Frames) -> Iterator[Row]:
    if path.is_dir():
        return ultralytics_rows(path, frames)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file; give the tracker's results")
    if path.suffix == ".json":
        return coco_rows(path, frames)
    if path.suffix == ".parquet" or (path.suffix == ".csv" and has_head(path)):
        return box_rows(path)
    return mot_rows(path)


def _check(row: Row) -> None:
    if not all(map(math.isfinite, (row.frame, row.track, *row.box, row.confidence))):
        raise ValueError(f"{row.where}: a number that is not finite")
    for name, value in (("frame", row.frame), ("id", row.track)):
        if value != int(value) or not 0 <= value <= MOST:
            known = "; an id of -1 is of a detector: let a tracker follow its boxes first"
            raise ValueError(
                f"{row.where}: the {name} {value:g} is no whole number of 0 to {MOST:,}"
                + (known if name == "id" and value == UNKNOWN else "")
            )
    width, height = row.box[2:]
    if width <= 0 or height <= 0:
        raise ValueError(f"{row.where}: a box of {width:g} x {height:g}: give width and height")
