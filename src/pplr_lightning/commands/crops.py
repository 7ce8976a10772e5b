"""`crops`: people cut out of videos by a tracker's boxes, with a table of where each was seen."""

from __future__ import annotations

import argparse
import json
import math
import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from rich.progress import track

from pplr_lightning.atomic_write import clear_left_over, write_whole, written_whole
from pplr_lightning.data.box_filter import BoxFilter
from pplr_lightning.data.box_reader import read_boxes
from pplr_lightning.data.boxes import Boxes
from pplr_lightning.data.video import Frames, open_frames
from pplr_lightning.functional.checks import check_count

DESCRIPTION = """
Cuts people out of videos by the boxes of a tracker (as the MOT challenge, Ultralytics or BoxMOT
write them, COCO's JSON with tracks, or a table) into a folder of JPEG files, a folder for each
camera, with a table crops.parquet of camera, tracklet and frame that the options `table` of a
folder's reader take. A run that is killed goes on where it stopped when it is started again.
"""
TABLE, SETTING = "crops.parquet", "crops.json"
QUALITY = 95  # of the JPEG files
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")


@dataclass(frozen=True)
class _Crop:
    path: str  # below the folder
    camera: str
    tracklet: int
    frame: int
    box: tuple[float, ...]
    area: tuple[int, int, int, int]


def run(args: list[str]) -> Path:
    """Writes the crops and their table.

    Returns:
        The table.
    """
    options = _parse(args)
    if math.isnan(options.min_confidence):
        raise ValueError("--min_confidence nan: must be a number")
    check_count("--first_frame", options.first_frame, least=0)
    names = ("first_frame", "min_confidence", "classes", "quality")
    setting = {name: getattr(options, name) for name in names}
    chosen = BoxFilter(**{field.name: getattr(options, field.name) for field in fields(BoxFilter)})
    out: Path = options.out
    _check_names([name for name, _, _ in options.camera])
    inputs = [(name, Path(boxes), Path(frames)) for name, boxes, frames in options.camera]
    setting |= {
        **asdict(chosen),
        "cameras": [[name, *map(_stamp, files)] for name, *files in inputs],
    }
    _check_folder(out, setting)
    videos: list[tuple[Frames, list[_Crop]]] = []
    for name, file, video in inputs:
        frames = open_frames(video, options.first_frame)
        boxes = read_boxes(
            file, frames, min_confidence=options.min_confidence, classes=tuple(options.classes)
        )
        videos.append((frames, _plan(name, file, boxes, frames, chosen)))
    clear_left_over(out)
    write_whole(out / SETTING, json.dumps(setting, indent=1) + "\n")
    for frames, crops in videos:
        _cut(out, frames, crops, options.quality)
    crops = [crop for _, some in videos for crop in some]
    table = _write_table(out / TABLE, crops)
    tracklets = len({(crop.camera, crop.tracklet) for crop in crops})
    print(f"{len(crops):,} crops of {tracklets:,} tracklets are in {out}, their table is {table}")
    return table


def _plan(name: str, file: Path, boxes: Boxes, frames: Frames, chosen: BoxFilter) -> list[_Crop]:
    """Lists a camera's crops, and says what was left out."""
    some = chosen.on_grid(boxes)
    if not len(some):
        raise ValueError(f"{file}: no box in a frame that --every {chosen.every} takes; lower it")
    sizes = frames.sizes(sorted(set(some.frame.tolist())))
    kept, left_out = chosen.select(some, sizes, str(file))
    reasons = ", ".join(f"{count:,} {reason}" for reason, count in left_out.items() if count)
    tracks, left = len(set(boxes.track.tolist())), len(set(kept.track.tolist()))
    print(
        f"camera {name}: {len(kept):,} of {len(some):,} boxes in {len(sizes):,} frames"
        + (f" (left out: {reasons})" if reasons else "")
        + (f"; {tracks - left:,} of {tracks:,} tracks have none left" if left < tracks else "")
    )
    if not len(kept):
        raise ValueError(f"{file}: the filters leave no box ({reasons}); loosen them")
    rows = zip(kept.frame.tolist(), kept.track.tolist(), kept.box, strict=True)
    return [
        _Crop(
            f"{name}/{tracklet:06d}_{frame:07d}.jpg",
            name,
            tracklet,
            frame,
            tuple(box.tolist()),
            chosen.area(box, sizes[frame]),
        )
        for frame, tracklet, box in rows
    ]


def _cut(out: Path, frames: Frames, crops: Iterable[_Crop], quality: int) -> None:
    """Writes the crops that are not there yet, each whole or not at all."""
    by_frame: dict[int, list[_Crop]] = {}
    for crop in crops:
        if not (out / crop.path).exists():
            by_frame.setdefault(crop.frame, []).append(crop)
    numbers = sorted(by_frame)
    sizes = frames.sizes(numbers)
    for number, image in track(frames.read(numbers), str(frames.path), total=len(numbers)):
        if image.size != sizes[number]:
            raise ValueError(
                f"{frames.path}: frame {number} is stored as {sizes[number]} and shown as "
                f"{image.size}: save frames upright"
            )
        for crop in by_frame[number]:
            with written_whole(out / crop.path, one_of_many=True) as aside:
                image.crop(crop.area).save(aside, "JPEG", quality=quality)


def _write_table(path: Path, crops: list[_Crop]) -> Path:
    boxes = zip(*(crop.box for crop in crops), strict=True)
    columns = {
        "path": [crop.path for crop in crops],
        "camera_id": [crop.camera for crop in crops],
        "tracklet_id": [crop.tracklet for crop in crops],
        "frame": [crop.frame for crop in crops],
        **dict(zip(("left", "top", "width", "height"), map(list, boxes), strict=True)),
    }
    with written_whole(path) as aside:
        pq.write_table(pa.table(columns), aside)
    return path


def _check_names(names: list[str]) -> None:
    ids = [int(name) if name.isdecimal() else name for name in names]  # 01 is read as 1
    times = Counter(ids)
    for name, camera in zip(names, ids, strict=True):
        if times[camera] > 1:
            raise ValueError(
                f"--camera {name} is given twice, and its tracklets would mix; give each video a "
                "name of its own"
            )
        if NAME.fullmatch(name) is None:
            raise ValueError(f"--camera {name!r}: a name of letters, digits, - and _, such as 1")


def _check_folder(out: Path, setting: dict[str, object]) -> None:
    """Refuses a folder of other things, or of crops that were made otherwise."""
    if not out.exists():
        return
    file = out / SETTING
    if out.is_dir() and all(one.suffix == ".part" for one in out.iterdir()):
        return  # empty, or left by one that was killed before it had written anything
    if not file.is_file():
        raise ValueError(f"{out} is there already, not of this command: name another folder")
    try:
        before = dict(json.loads(file.read_text(encoding="utf-8")))
    except (ValueError, TypeError) as error:
        raise ValueError(f"{file}: cannot be read ({error}); name another folder") from error
    other = [name for name, value in setting.items() if before.get(name) != value]
    if other:
        raise ValueError(
            f"{out} holds crops made with another {' and '.join(other)}: name another folder, or "
            "remove it"
        )


def _stamp(path: Path) -> list[object]:
    """Names a file by what changes with its content, a folder by its path."""
    if not path.is_file():
        return [str(path.absolute())]
    found = path.stat()
    return [str(path.absolute()), found.st_size, found.st_mtime_ns]


def _parse(args: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser("python -m pplr_lightning crops", description=DESCRIPTION)
    parser.add_argument(
        "--camera",
        nargs=3,
        action="append",
        required=True,
        metavar=("NAME", "BOXES", "FRAMES"),
        help="a camera: its name (a number, if its people are to be searched for later), the "
        "tracker's file or folder, and its video or a folder of frames; any number of times",
    )
    parser.add_argument("--out", type=Path, required=True, help="the folder to write")
    parser.add_argument(
        "--first_frame",
        type=int,
        default=1,
        help="the tracker's number of a video file's first frame (default: 1); images in a folder "
        "have their numbers in their names",
    )
    parser.add_argument(
        "--min_confidence",
        type=float,
        default=0.0,
        help="leave out boxes of this confidence or less (default: 0); -1 is none and stays",
    )
    parser.add_argument(
        "--classes",
        type=int,
        nargs="+",
        default=[],
        help="whom to cut out, by the numbers that the tracker's file gives (default: persons)",
    )
    parser.add_argument(
        "--quality",
        type=int,
        choices=range(50, 101),
        default=QUALITY,
        metavar="50-100",
        help=f"of the JPEG files (default: {QUALITY})",
    )
    for option, text in {
        "every": "every n-th frame",
        "min_width": "of a box, in pixels",
        "min_height": "likewise",
        "min_aspect": "height over width",
        "max_aspect": "likewise",
        "max_overlap": "share of a box that another of its frame may cover",
        "border": "leave out boxes as near as this to the frame's edge, in pixels; -1 keeps them",
        "padding": "share of width and height to add on each side",
    }.items():
        default = getattr(BoxFilter, option)
        parser.add_argument(
            f"--{option}", type=type(default), default=default, help=f"{text} (default: {default})"
        )
    return parser.parse_args(args)
