# ruff: noqa: E501, RUF001 - tables of input, in other scripts, too
"""Boxes of a tracker, frames and options for `crops`."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from PIL import Image

from .bench import Bench, Case

LINES = "1,1,5,5,40,90,1,-1,-1,-1\n1,2,60,5,40,90,1,-1,-1,-1\n10,1,9,5,40,90,1,-1,-1,-1\n"


def video(folder: Path) -> tuple[Path, Path]:
    """Writes good boxes, and a folder of frames of 160 x 120 pixels."""
    frames = folder / "frames"
    frames.mkdir()
    for number in range(1, 11):
        Image.new("RGB", (160, 120), (number * 20, 90, 60)).save(frames / f"{number:06d}.jpg")
    boxes = folder / "boxes.txt"
    boxes.write_text(LINES)
    return boxes, frames


def crops(boxes: Path, frames: Path, out: Path, *options: str) -> list[str]:
    """Cuts people out of one camera."""
    return [
        "crops",
        "--camera",
        "1",
        str(boxes),
        str(frames),
        "--every=1",
        f"--out={out}",
        *options,
    ]


def crop_cases(bench: Bench) -> Iterator[Case]:
    """Boxes of a tracker, frames and options for `crops`."""
    boxes, frames = video(bench.new())
    good = LINES.encode()
    texts: dict[str, bytes] = {
        "empty": b"", "blank": b"\n\n \n", "words": b"one,two,three,4,5,6,7\n", "a header": b"frame,id,left,top,width,height,conf\n" + good,
        "few columns": b"1,1,5,5\n", "a column too few in one line": good + b"2,1,5,5,40\n", "semicolons": good.replace(b",", b";"),
        "spaces": good.replace(b",", b" "), "NaN": good.replace(b"60,5", b"nan,5"), "infinite": good.replace(b"60,5", b"inf,5"),
        "negative width": good.replace(b"40,90", b"-40,90", 1), "no width": good.replace(b"40,90", b"0,90", 1),
        "negative id": good.replace(b"1,2,60", b"1,-1,60"), "half an id": good.replace(b"1,2,60", b"1,2.5,60"),
        "frame 0": b"0" + good[1:], "negative frame": b"-1" + good[1:], "half a frame": b"1.5" + good[1:],
        "frame that is not there": good + b"99,1,5,5,40,90,1,-1,-1,-1\n", "huge frame": good + b"9" * 25 + b",1,5,5,40,90,1,-1,-1,-1\n",
        "huge id": good.replace(b"1,2,60", b"1," + b"9" * 25 + b",60"), "outside": good + b"2,1,500,5,40,90,1,-1,-1,-1\n",
        "left of it": good + b"2,1,-500,5,40,90,1,-1,-1,-1\n", "huge box": good + b"2,1,5,5,1e300,90,1,-1,-1,-1\n",
        "track twice in a frame": good + b"1,1,7,5,40,90,1,-1,-1,-1\n", "UTF-16": LINES.encode("utf-16"), "zeros": good + b"\0\0\0\0\n",
        "binary": bytes(range(256)) * 9, "other digits": good + "２,1,5,5,40,90,1,-1,-1,-1\n".encode(), "long line": b"1," * 300_000 + b"\n",
        "JSON": b'{"frame": 1}', "all too small": b"1,1,5,5,4,9,1,-1,-1,-1\n",
    }  # fmt: skip
    for what, content in texts.items():
        file = bench.new() / "odd.txt"
        file.write_bytes(content)
        yield Case(
            f"crops {what}", crops(file, frames, bench.new() / "out"), ("odd.txt", str(frames))
        )
    fifo = bench.new() / "pipe.txt"
    os.mkfifo(fifo)
    for file in (fifo, Path("/dev/zero"), Path("/dev/null"), frames, Path("nope.txt")):
        yield Case(f"crops of {file}"[:40], crops(file, frames, bench.new() / "out"), (str(file),))
    # A text file, a device and a pipe are taken for videos.
    for place in (Path("nope"), bench.folder / "few", bench.new(), boxes, Path("/dev/null"), fifo):
        yield Case(
            f"crops in frames {place}"[:40], crops(boxes, place, bench.new() / "out"), (str(place),)
        )
    torn = bench.new() / "frames"
    torn.mkdir()
    for path in frames.iterdir():
        (torn / path.name).write_bytes(path.read_bytes()[:300])
    yield Case("crops of torn frames", crops(boxes, torn, bench.new() / "out"), (str(torn),))
    for option in (
        "--every=0", "--every=-1", "--every=99999", "--every=x", "--min_width=-1", "--min_aspect=9", "--max_overlap=2",
        "--max_overlap=nan", "--min_aspect=nan", "--padding=-9", "--padding=1e9", "--border=999", "--min_confidence=nan",
        "--min_confidence=9", "--first_frame=7", "--classes=x", "--quality=0", "--quality=999", "--nope=1",
        "--out=", "--out=/", "--out=/proc/nope",
    ):  # fmt: skip
        name = option.partition("=")[0].lstrip("-")
        named = (name, str(boxes), str(frames), "name another folder", "/proc/nope")
        yield Case(f"crops with {option}", crops(boxes, frames, bench.new() / "out", option), named)
    for words in (
        ["crops"], ["crops", "--out=x"], ["crops", "--camera", "1", "--out=x"], ["crops", "--camera", "../1", str(boxes), str(frames), "--out=x"],
        ["crops", "--camera", "", str(boxes), str(frames), "--out=x"],
        [*crops(boxes, frames, bench.new() / "out"), "--camera", "1", str(boxes), str(frames)],
        [*crops(boxes, frames, bench.few)],
    ):  # fmt: skip
        yield Case(f"crops as {' '.join(words)}"[:60], words, ("camera", "out", "few"))
