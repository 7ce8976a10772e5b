from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from pplr_lightning.data.box_reader import read_boxes
from pplr_lightning.data.boxes import Boxes
from pplr_lightning.data.video import FrameFolder, Frames

# Of two people in two frames of 100 x 200 pixels: frame, track, left, top, width, height.
BOXES = [(3, 1, 10, 20, 30, 60), (3, 2, 50, 20, 30, 60), (7, 1, 12, 20, 30, 60)]


@pytest.fixture
def frames(tmp_path) -> Frames:
    for number in (3, 7):
        (tmp_path / "north").mkdir(exist_ok=True)
        Image.new("RGB", (100, 200)).save(tmp_path / f"north/{number:06d}.png")
    return FrameFolder(tmp_path / "north")


def mot(folder: Path) -> Path:
    lines = (f"{f},{i},{x + 1},{y + 1},{w},{h},0.9,-1,-1,-1\n" for f, i, x, y, w, h in BOXES)
    (folder / "a.txt").write_text("".join(lines))
    return folder / "a.txt"


def boxmot(folder: Path) -> Path:
    other = "7,9,10,20,30,60,0.9,2,-1\n"  # a car
    lines = (f"{f},{i},{x}.0,{y}.0,{w}.0,{h}.0,0.9,0,-1\n" for f, i, x, y, w, h in BOXES)
    (folder / "tracks.txt").write_text("".join(lines) + other)
    return folder / "tracks.txt"


def ultralytics(folder: Path, confidence: str = "", more: str = "") -> Path:
    (folder / "labels").mkdir()
    for f, i, x, y, w, h in BOXES:
        box = f"{(x + w / 2) / 100:g} {(y + h / 2) / 200:g} {w / 100:g} {h / 200:g}"
        with (folder / f"labels/north_{f}.txt").open("a") as file:
            file.write(f"0 {box}{confidence} {i}\n" + (more if i == 1 else ""))
    return folder / "labels"


def ultralytics_with_confidence(folder: Path) -> Path:
    return ultralytics(folder, " 0.9", "2 0.5 0.5 0.1 0.2 0.9 9\n")


def table() -> pa.Table:
    names = ("frame", "tracklet_id", "left", "top", "width", "height")
    return pa.table({name: [box[i] for box in BOXES] for i, name in enumerate(names)})


def parquet(folder: Path) -> Path:
    made = table().append_column("other", pa.array(["a"] * 3))
    pq.write_table(made, folder / "a.parquet")
    return folder / "a.parquet"


def csv_with_head(folder: Path) -> Path:
    with (folder / "a.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerows([["id", "frame", "track_id", "left", "top", "width", "height"]])
        writer.writerows([5, *row] for row in BOXES)
    return folder / "a.csv"


def csv_of_the_challenge(folder: Path) -> Path:
    return mot(folder).rename(folder / "a.csv")


def coco(folder: Path, **change) -> Path:
    images = [
        {"id": 100 + f, "video_id": 1, "frame_id": f - 1, "file_name": f"north/{f:06d}.png"}
        for f in (3, 7)
    ]
    notes = [
        {"id": 1, "image_id": 100 + f, "instance_id": i, "bbox": [x, y, w, h], "category_id": 4}
        for f, i, x, y, w, h in BOXES
    ]
    notes.append({**notes[0], "instance_id": 9, "category_id": 5})
    notes.append({**notes[0], "instance_id": 8, "iscrowd": 1})
    names = [{"id": 4, "name": "Person"}, {"id": 5, "name": "car"}]
    content = {"images": images, "annotations": notes, "categories": names, **change}
    (folder / "a.json").write_text(json.dumps(content))
    return folder / "a.json"


FORMATS = [
    mot,
    boxmot,
    ultralytics,
    ultralytics_with_confidence,
    parquet,
    csv_with_head,
    csv_of_the_challenge,
    coco,
]


@pytest.mark.parametrize("write", FORMATS)
def test_one_result_of_all_formats(write, frames, tmp_path):
    boxes = read_boxes(write(tmp_path), frames)
    found = np.column_stack([boxes.frame, boxes.track, boxes.box])
    np.testing.assert_allclose(found, BOXES)
    assert boxes.frame.dtype == boxes.track.dtype == np.int64


def test_confidence_and_classes(frames, tmp_path):
    def tracks(path: Path, **options) -> list[int]:
        return read_boxes(path, frames, **options).track.tolist()

    path = boxmot(tmp_path)
    assert tracks(path, classes=(2,)) == [9]
    assert tracks(path, classes=(0, 2)) == [1, 2, 1, 9]
    with pytest.raises(ValueError, match=r"tracks.txt: holds no box of a person \(--classes\) abo"):
        tracks(path, min_confidence=0.9)
    with pytest.raises(ValueError, match=r"holds no box of the classes 3 4 \(--classes\)"):
        tracks(path, classes=(3, 4))
    assert tracks(ultralytics_with_confidence(tmp_path), classes=(2,)) == [9, 9]
    assert tracks(coco(tmp_path), classes=(5,)) == [9]
    made = table().append_column("confidence", pa.array([0.9, 0.4, 0.5]))
    pq.write_table(made, tmp_path / "a.parquet")
    assert tracks(tmp_path / "a.parquet", min_confidence=0.4) == [1, 1]


class TestRefuses:
    """One line."""

    def refused(self, path: Path, frames: Frames, match: str) -> None:
        with pytest.raises((ValueError, FileNotFoundError), match=match) as caught:
            read_boxes(path, frames)
        assert len(str(caught.value).splitlines()) == 1

    @pytest.mark.parametrize(
        ("text", "match"),
        [
            ("9,2,3,4,nan,6,1", r"a.txt, line 2: a number that is not finite"),
            ("nan,2,3,4,5,6,1", r"line 2: a number that is not finite"),
            ("9,2,3,4,5,inf,1", r"line 2: a number that is not finite"),
            ("1.5,2,3,4,5,6,1", r"line 2: the frame 1.5 is no whole number of 0 to"),
            ("1,-1,3,4,5,6,1", r"line 2: the id -1 is no whole .* let a tracker follow its boxes"),
            ("1e300,1,3,4,5,6,1", r"line 2: the frame 1e\+300 is no whole"),
            ("1,2,3,4,5,-6,1", r"line 2: a box of 5 x -6: give width and height"),
            ("9,9,3,4,5,6,1", r"line 2: a second box of track 9 in frame 9"),
        ],
    )
    def test_what_is_no_box(self, text, match, frames, tmp_path):
        (tmp_path / "a.txt").write_text(f"9,9,9,9,9,9,1\n{text}\n")
        self.refused(tmp_path / "a.txt", frames, match)

    def test_no_file(self, frames, tmp_path):
        self.refused(tmp_path / "a.txt", frames, r"a.txt: no such file; give the tracker's")
        (tmp_path / "a.txt").write_text("1,1,1,1,9,9,0,1,1\n")
        self.refused(tmp_path / "a.txt", frames, r"a.txt: holds no box of a person .* above a")

    @pytest.mark.parametrize(
        ("lines", "match"),
        [
            ("0 .5 .5 .1 .2", r"labels: no box has an id: write them by model.track"),
            ("0 .5 .5 .1 .2 0.87", r"labels: no box has an id"),
            ("0 .5 .5 .1 .2 -1", r"north_3.txt, line 1: the id -1 is no whole .* let a tracker"),
            ("0 50 50 10 20 1", r"north_3.txt, line 1: 50 50 10 20 are no fractions of the frame"),
            ("0 .5 .5 .1 x 1", r"north_3.txt, line 1: could not convert string to float: 'x'"),
            ("0 .5 .5 .1 .2 .3 .4 1", r"north_3.txt, line 1: 8 columns, where a box has class"),
        ],
    )
    def test_texts_of_ultralytics(self, lines, match, frames, tmp_path):
        (tmp_path / "labels").mkdir()
        (tmp_path / "labels/north_3.txt").write_text(lines + "\n")
        self.refused(tmp_path / "labels", frames, match)

    def test_folders_of_ultralytics(self, frames, tmp_path):
        self.refused(tmp_path / "north", frames, r"north: the folder holds no .txt")
        path = ultralytics(tmp_path)
        (path / "south_3.txt").touch()
        self.refused(path, frames, r"north_3.txt and .*south_3.txt are both of frame 3: give each")
        (path / "south_3.txt").rename(path / "north_8.txt").write_text("0 .5 .5 .1 .2 1\n")
        self.refused(path, frames, r"north: there is no frame 8, which has boxes")
        (path / "north_8.txt").rename(path / "classes.txt")
        self.refused(path, frames, r"classes.txt: the name does not end with the number")

    @pytest.mark.parametrize(
        ("text", "match"),
        [
            ("frame,left,top,width,height\n1,2,3,4,5\n", r"a.csv: needs the columns frame, left, "),
            ("frame,track,left,top,width\n1,2,3,4,5\n", r"a.csv: needs the columns .*; has frame"),
            ("frame,track,left,top,width,height\n1,2,3,4,5,x\n", r"line 2: height is x, and no n"),
            ("frame,track,left,top,width,height\n1,2,3,4,5,\n", r"line 2: height is missing, and"),
            ("frame,track,left,top,width,height\n1,2,3\n", r"a.csv, line 2: not a value for"),
            ("frame,track,left,top,width,height\n1,-1,3,4,5,6\n", r"a.csv, line 2: the id -1 is"),
            ("frame,track,left,top,width,height\n", r"a.csv: holds no box of a person"),
        ],
    )
    def test_tables(self, text, match, frames, tmp_path):
        (tmp_path / "a.csv").write_text(text)
        self.refused(tmp_path / "a.csv", frames, match)

    def test_what_is_no_parquet(self, frames, tmp_path):
        (tmp_path / "a.parquet").write_text("frame")
        self.refused(tmp_path / "a.parquet", frames, r"a.parquet: no Parquet file \(")

    @pytest.mark.parametrize(
        ("change", "match"),
        [
            ({"annotations": 5}, r"a.json: no COCO file of a video, which has images and annot"),
            ({"annotations": [{"image_id": 103}]}, r"annotation 0: has no instance_id"),
            ({"annotations": [{"bboxes": []}]}, r"annotation 0: has no image_id"),
            ({"annotations": ["a"]}, r"annotation 0: has no image_id"),
            (
                {"annotations": [{"image_id": 5, "track_id": 1}]},
                r"annotation 0: there is no image 5",
            ),
            (
                {"annotations": [{"image_id": 103, "track_id": 1, "bbox": [1, 2, 3]}]},
                r"annotation 0: frame, track, bbox .* are numbers",
            ),
            (
                {"annotations": [{"image_id": 103, "track_id": "a", "bbox": [1, 2, 3, 4]}]},
                r"annotation 0: frame, track, bbox .* are numbers",
            ),
            ({"images": [{"id": 103}]}, r"a.json, image 0: has no file_name"),
            ({"categories": [{"id": 1, "name": "a"}, {"id": 2, "name": "b"}]}, r"--classes"),
        ],
    )
    def test_coco(self, change, match, frames, tmp_path):
        self.refused(coco(tmp_path, **change), frames, match)
        (tmp_path / "a.json").write_text("{")
        self.refused(tmp_path / "a.json", frames, r"a.json: no JSON \(")


def test_boxes_that_are_not_followed_are_left_out(frames, tmp_path):
    path = ultralytics(tmp_path, " 0.9", "0 0.5 0.5 0.1 0.2 1\n")  # a confidence of 1
    with pytest.warns(UserWarning, match=r"labels: 2 of 5 boxes have no id: left out"):
        assert len(read_boxes(path, frames)) == 3


class Film(Frames):
    """A video file's frames."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def sizes(self, numbers):
        return dict.fromkeys(numbers, (100, 200))

    def read(self, numbers):
        raise NotImplementedError


def test_coco_of_a_video_file_and_of_several(frames, tmp_path):
    """A file's frames are numbered by `frame_id`."""

    def read(path: Path, name: str) -> Boxes:
        return read_boxes(path, Film(tmp_path / name))

    assert read(coco(tmp_path), "north.mp4").frame.tolist() == [2, 2, 6]
    images = [
        {"id": 103, "video_id": 1, "frame_id": 3},
        {"id": 107, "video_id": 2, "frame_id": 7},
    ]
    videos = [{"id": 1, "name": "a/north"}, {"id": 2, "name": "a/south"}]
    path = coco(tmp_path, images=images, videos=videos)
    assert read(path, "north.mp4").frame.tolist() == [3, 3]
    assert read(path, "south").frame.tolist() == [7]
    match = r"a.json: holds 2 videos, of which none has the name of .*east; has north, south"
    with pytest.raises(ValueError, match=match):
        read(path, "east")
