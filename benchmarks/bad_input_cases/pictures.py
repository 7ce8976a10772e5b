# ruff: noqa: E501 - tables of input
"""Pictures that are none, for `predict`, `search`, `fit` and `labels`."""

from __future__ import annotations

import io
import os
import random
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from .bench import Bench, Case


def pictures(bench: Bench) -> dict[str, Callable[[Path], Any]]:
    """What writes something other than a good picture under a name."""
    source = sorted(bench.few.iterdir())[0]
    content = source.read_bytes()
    jpeg = io.BytesIO()
    Image.open(source).convert("RGB").save(jpeg, "JPEG")
    gif, tiff, draw = io.BytesIO(), io.BytesIO(), random.Random(0)
    Image.open(source).convert("L").save(gif, "GIF")
    Image.fromarray(np.full((8, 8), np.nan, np.float32)).save(tiff, "TIFF")

    def flipped(data: bytes, at: int) -> bytes:
        return data[:at] + bytes([data[at] ^ 0xFF]) + data[at + 1 :]

    made: dict[str, bytes] = {
        "empty": b"", "a text": b"no picture", "zeros": bytes(1000), "page": b"<html></html>",
        "pointer": b"version https://git-lfs.github.com/spec/v1\n", "cut off": content[: len(content) // 2],
        "head alone": content[:16], "last byte gone": content[:-20], "JPEG cut off": jpeg.getvalue()[:-300],
        "surplus": content + b"surplus", "JPEG head": jpeg.getvalue()[:20], "GIF": gif.getvalue(),
        "GIF cut off": gif.getvalue()[:40], "TIFF of NaN": tiff.getvalue(), "TIFF head": b"II*\0\xff\xff\xff\xff",
        "SVG": b"<svg xmlns='http://www.w3.org/2000/svg'/>", "PPM of no size": b"P6 0 0 255\n",
        "PPM huge": b"P6 60000 60000 255\n", "PPM negative": b"P6 -1 4 255\n", "BMP head": b"BM" + bytes(40),
        "EPS": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "a pickle": b"\x80\x04\x95", "ICO": b"\0\0\1\0\1\0",
        "PNG size 0": content[:16] + bytes(8) + content[24:],
        "PNG huge": content[:16] + b"\x7f\xff\xff\xff\x7f\xff\xff\xff" + content[24:],
        "WebP head": b"RIFF\x24\0\0\0WEBPVP8 ", "PSD": b"8BPS\0\1" + bytes(20), "DDS": b"DDS " + bytes(124),
    }  # fmt: skip
    for number in range(5):
        made[f"PNG flipped {number}"] = flipped(content, draw.randrange(len(content)))
        made[f"JPEG flipped {number}"] = flipped(
            jpeg.getvalue(), draw.randrange(len(jpeg.getvalue()))
        )
    writers: dict[str, Callable[[Path], Any]] = {
        what: (lambda path, data=data: path.write_bytes(data)) for what, data in made.items()
    }
    writers |= {
        "pipe": lambda path: os.mkfifo(path), "folder": lambda path: path.mkdir(),
        "dangling link": lambda path: path.symlink_to("nope"),
        "link to itself": lambda path: path.symlink_to(path),
        "link to a device": lambda path: path.symlink_to("/dev/zero"),
        "link to memory": lambda path: path.symlink_to("/proc/self/mem"),
        "sparse": lambda path: os.truncate(os.open(path, os.O_CREAT | os.O_RDWR), 2**36),
        "CMYK": lambda path: Image.new("CMYK", (8, 8)).save(path, "JPEG"),
        "one pixel": lambda path: Image.new("1", (1, 1)).save(path, "PNG"),
        "a long stripe": lambda path: Image.new("L", (20_000, 1)).save(path, "PNG"),
        "a bomb": lambda path: Image.new("1", (20_000, 20_000)).save(path, "PNG"),
        "no transparency": lambda path: Image.new("LA", (8, 8)).save(path, "PNG"),
    }  # fmt: skip
    return writers


def picture_cases(bench: Bench) -> Iterator[Case]:
    """Pictures that are none."""
    for number, (what, write) in enumerate(pictures(bench).items()):
        commands = [("search", "fit"), ("predict", "search"), ("labels", "predict")][number % 3]
        for command in commands:
            folder = bench.new()
            odd = folder / ("odd.jpg" if "JPEG" in what else "odd.png")
            write(odd)
            for path in list(bench.few.iterdir())[:3] if command != "search" else []:
                shutil.copy(path, folder)
            words = {
                "predict": bench.predict(root=folder),
                "search": bench.search("--query", str(odd)),
                "labels": bench.labels(root=folder),
                "fit": [
                    "fit", *bench.options(), "--data.dataset=pplr_lightning.data.ImageFolder",
                    f"--data.dataset.root={folder}", "--pseudo_labels.labeler=Instances",
                    "--data.batch_size=4", "--data.instances=1", "--model.network.norm_batch_size=4",
                    "--model.agreement_k=2",
                ],
            }[command]  # fmt: skip
            yield Case(f"picture of {command}: {what}", words, (odd.name, "k1", "neighbo"))
