from __future__ import annotations

import json

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from pplr_lightning.commands import crops as command
from pplr_lightning.data import ImageFolder
from pplr_lightning.data.datasets import frame_numbers, tracklet_numbers


@pytest.fixture
def videos(tmp_path):
    """Two cameras of three frames, in which tracks 1 and 2 walk, red and blue; writes and names."""
    for camera in (1, 2):
        lines = []
        for frame in (10, 20, 30):
            picture = np.full((120, 200, 3), 128, np.uint8)
            for track, colour in ((1, (220, 0, 0)), (2, (0, 0, 220))):
                left, top = 10 + frame + 80 * (track - 1), 20
                picture[top : top + 80, left : left + 30] = colour
                lines.append(f"{frame},{track},{left + 1},{top + 1},30,80,0.9,-1,-1,-1\n")
            (tmp_path / str(camera)).mkdir(exist_ok=True)
            Image.fromarray(picture).save(tmp_path / f"{camera}/{frame:06d}.png")
        lines.append("15,1,1,1,30,80,0.9,-1,-1,-1\n")  # of a frame that is not taken
        (tmp_path / f"{camera}.txt").write_text("".join(lines))
    return [
        word
        for camera in "12"
        for word in ("--camera", camera, str(tmp_path / f"{camera}.txt"), str(tmp_path / camera))
    ]


def test_from_boxes_to_samples(run, videos, tmp_path, capsys):
    out = tmp_path / "crops"
    table = run("crops", *videos, f"--out={out}")
    assert "camera 1: 6 of 6 boxes in 3 frames\n" in capsys.readouterr().out
    splits = ImageFolder(out, table=table).load()
    assert len(splits.train) == 12
    assert "12 images, unknown identities, 2 cameras, 4 tracklets" in splits.describe()
    assert tracklet_numbers(splits.train)[:6] == [0, 0, 0, 1, 1, 1]
    assert frame_numbers(splits.train)[:6] == [0, 1, 2, 0, 1, 2]
    pixels = [np.asarray(Image.open(sample.path)) for sample in splits.train]
    assert {image.shape for image in pixels} == {(80, 30, 3)}
    assert [int(image[5:-5, 5:-5].mean((0, 1)).argmax()) for image in pixels[:6]] == [0] * 3 + [
        2
    ] * 3
    assert min(image.min(axis=(0, 1)).max() for image in pixels) > 180  # nothing of the ground
    row = pq.read_table(table).to_pylist()[1]
    assert row == {"path": "1/000002_0000010.jpg", "camera_id": "1", "tracklet_id": 2, "frame": 10,
                   "left": 100.0, "top": 20.0, "width": 30.0, "height": 80.0}  # fmt: skip


def test_a_run_that_was_killed_goes_on(run, videos, tmp_path, monkeypatch):
    out, read = tmp_path / "crops", []
    whole = command.written_whole

    def fail(path, **options):
        if path.name == "000002_0000020.jpg":
            raise KeyboardInterrupt
        return whole(path, **options)

    monkeypatch.setattr(command, "written_whole", fail)
    with pytest.raises(KeyboardInterrupt):
        run("crops", *videos, f"--out={out}")
    assert len(list(out.rglob("*.jpg"))) == 3
    assert not (out / "crops.parquet").exists()
    before = {file: file.stat().st_mtime_ns for file in out.rglob("*.jpg")}
    (out / f"1/000002_0000020.jpg.{1:016x}.part").touch()  # as a kill leaves it

    def count(path, **options):
        read.append(path.name)
        return whole(path, **options)

    monkeypatch.setattr(command, "written_whole", count)
    run("crops", *videos, f"--out={out}")
    assert len(read) == 10  # nine crops and the table
    assert not list(out.rglob("*.part"))
    assert all(file.stat().st_mtime_ns == time for file, time in before.items())
    assert len(ImageFolder(out, table=out / "crops.parquet").load().train) == 12


def test_another_setting_in_the_same_folder(run, videos, tmp_path, capsys):
    out = tmp_path / "crops"
    run("crops", *videos, f"--out={out}")

    def refused(*words):
        with pytest.raises(SystemExit):
            run("crops", *words)
        return capsys.readouterr().err

    error = refused(*videos, f"--out={out}", "--padding=0.1")
    assert error == (
        f"error: {out} holds crops made with another padding: name another folder, or remove it\n"
    )
    assert "another cameras" in refused(*videos[:4], f"--out={out}")
    for text in ("[", "[1]"):
        (out / "crops.json").write_text(text)
        assert "crops.json: cannot be read" in refused(*videos, f"--out={out}")
    (out / "crops.json").unlink()
    assert "is there already, not of this command" in refused(*videos, f"--out={out}")


def test_a_folder_left_by_one_that_had_written_nothing(run, videos, tmp_path):
    out = tmp_path / "crops"
    out.mkdir()
    (out / "crops.json.0123456789abcdef.part").write_text("{")
    assert run("crops", *videos, f"--out={out}").is_file()
    assert not list(out.rglob("*.part"))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("--min_confidence", "nan"), "--min_confidence nan: must be a number"),
        (("2", "1"), "--camera 1 is given twice, and its tracklets would mix"),
        (("2", "01"), "--camera 1 is given twice, and its tracklets would mix"),
        (("2", "../x"), "--camera '../x': a name of letters, digits"),
        (("--every", "7"), "1.txt: no box in a frame that --every 7 takes"),
        (("--every", "15"), "1: there is no frame 15, which has boxes; it holds 10 to 30"),
        (("--min_height", "90"), "1.txt: the filters leave no box (6 small)"),
        (("--first_frame", "-1"), "--first_frame must be at least 0, got -1"),
        (("--max_overlap", "2"), "--max_overlap must be in [0, 1], got 2.0"),
    ],
)
def test_what_is_refused_writes_nothing(run, videos, tmp_path, capsys, change, message):
    words = [*videos, f"--out={tmp_path / 'crops'}"]
    if change[0] == "2":
        words[5] = change[1]
    else:
        words += change
    with pytest.raises(SystemExit) as stop:
        run("crops", *words)
    assert stop.value.code == 1
    errors = capsys.readouterr().err.splitlines()
    assert len(errors) == 1
    assert message in errors[0]
    assert not (tmp_path / "crops").exists()


def test_tracks_that_are_left_out_are_counted(run, videos, tmp_path, capsys):
    with (tmp_path / "1.txt").open("a") as file:
        file.write("10,3,60,20,10,20,0.9,-1,-1,-1\n")
    run("crops", *videos[:4], f"--out={tmp_path / 'crops'}")
    printed = capsys.readouterr().out
    assert "(left out: 1 small); 1 of 3 tracks have none left\n" in printed
    assert json.loads((tmp_path / "crops/crops.json").read_text())["every"] == 10
