"""COCO's JSON of videos: images with frames, annotations with tracks."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pplr_lightning.data.boxes import UNKNOWN, Row
from pplr_lightning.data.files import read_utf8
from pplr_lightning.data.video import FrameFolder, Frames, frame_number

PERSONS = ("person", "pedestrian")


def coco_rows(path: Path, frames: Frames) -> Iterator[Row]:
    """Yields the boxes of a file of `images`, `annotations` and `categories`.

    An annotation has `image_id`, `bbox` (left, top, width and height, from 0), `track_id` or
    `instance_id`, and may have `category_id` and `score`; crowds and what is to be ignored are left
    out. The frame is the image's `frame_id`, but of a folder of frames the number in its
    `file_name`, for one program counts frames from 0, another from 1. Where there are several
    videos, it is the one of the frames' name.

    Args:
        path: The file.
        frames: The video.

    Raises:
        ValueError: It is no such file, or it cannot be told which video or which class is meant.
    """
    try:
        content = json.loads(read_utf8(path))
    except json.JSONDecodeError as error:
        raise ValueError(f"{path}: no JSON ({error})") from error
    lists = ("images", "annotations")
    if not isinstance(content, dict) or not all(isinstance(content.get(n), list) for n in lists):
        raise ValueError(f"{path}: no COCO file of a video, which has images and annotations")
    video, person = _video(path, content, frames), _person(content)
    numbers: dict[Any, Any] = {}  # None for those of other videos
    for place, image in enumerate(content["images"]):
        where = f"{path}, image {place}"
        if video is not None and _of(image, "video_id", where) != video:
            number = None
        elif isinstance(frames, FrameFolder):
            number = frame_number(Path(str(_of(image, "file_name", where))))
        else:
            number = _of(image, "frame_id", where)
        numbers[_of(image, "id", where)] = number
    for place, note in enumerate(content["annotations"]):
        where = f"{path}, annotation {place}"
        image = _of(note, "image_id", where)
        if image not in numbers:
            raise ValueError(f"{where}: there is no image {image}")
        if numbers[image] is None or note.get("iscrowd") or note.get("ignore"):
            continue
        track = _of(note, "track_id" if "track_id" in note else "instance_id", where)
        box, score = _of(note, "bbox", where), note.get("score", UNKNOWN)
        kind = note.get("category_id", UNKNOWN)
        known = isinstance(box, list) and len(box) == 4
        numeric = [numbers[image], track, *(box if known else []), score, kind]
        if not known or not all(type(value) in (int, float) for value in numeric):
            raise ValueError(
                f"{where}: frame, track, bbox (left, top, width, height), score and category_id "
                "are numbers"
            )
        yield Row(where, numbers[image], track, tuple(box), score, kind, person)


def _of(entry: Any, name: str, where: str) -> Any:
    value = entry.get(name) if isinstance(entry, dict) else None
    if value is None or isinstance(value, dict) or isinstance(value, list) != (name == "bbox"):
        raise ValueError(f"{where}: has no {name}")
    return value


def _video(path: Path, content: dict[str, Any], frames: Frames) -> Any:
    """Gives the id of the video of the frames, None where there is but one."""
    ids = {str(image.get("video_id")) for image in content["images"] if isinstance(image, dict)}
    if len(ids) < 2:
        return None
    names = {
        Path(str(video.get("name", video.get("file_name")))).stem: video.get("id")
        for video in content.get("videos") or []
        if isinstance(video, dict)
    }
    if frames.path.stem not in names:
        raise ValueError(
            f"{path}: holds {len(ids)} videos, of which none has the name of {frames.path}; has "
            f"{', '.join(sorted(names)[:5]) or 'no list of videos'}"
        )
    return names[frames.path.stem]


def _person(content: dict[str, Any]) -> float:
    """Gives the number of the class of persons: by name, else the only one, else COCO's own."""
    found = [one for one in content.get("categories") or [] if isinstance(one, dict)]
    named = [one for one in found if str(one.get("name")).lower() in PERSONS]
    one = (named or found or [{}])[0] if named or len(found) < 2 else {"id": UNKNOWN}
    return one.get("id", 1)
