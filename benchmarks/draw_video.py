"""Draws videos of people who walk past cameras, with their boxes as a tracker writes them.

    python benchmarks/draw_video.py --out drawn_video

Writes for each camera a folder of frames, `1/000001.jpg` and so on, and `1.txt`, boxes in the
format of the MOT challenge. Everybody walks past every camera, some of them at once; nobody is
real. Track numbers are of chance, so that they say nothing about who is who in another camera;
`people.csv` does.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from pplr_lightning.data.drawing import (
    Camera,
    Canvas,
    Eye,
    Person,
    Pose,
    draw_person,
    make_camera,
    make_person,
)
from pplr_lightning.data.drawing.people import stream
from pplr_lightning.data.drawing.places import draw_place

STEP = 16.0  # hundredths of a person's height from a frame to the next
SIDE = 260.0  # where people come into the picture, and leave it


def main(arguments: Sequence[str] | None = None) -> None:
    """Draws and writes."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="a new folder")
    parser.add_argument("--cameras", type=int, default=2)
    parser.add_argument("--people", type=int, default=20)
    parser.add_argument("--gap", type=int, default=12, help="frames from one who comes to the next")
    parser.add_argument("--size", type=int, nargs=2, default=(480, 270), help="width and height")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    options.out.mkdir(parents=True)
    people = [make_person(options.seed, number) for number in range(options.people)]
    rows = []
    for number in range(1, options.cameras + 1):
        rng = stream(options.seed, 9, number)
        camera = make_camera(options.seed, number, shift=0.2)
        tracks = rng.permutation(1000)[: len(people)] + 1
        order = rng.permutation(len(people)).tolist()
        walks = {
            who: (place * options.gap, int(rng.choice((-1, 1))), float(rng.uniform(-60, 60)))
            for place, who in enumerate(order)
        }
        _draw(options.out / str(number), camera, people, walks, tracks, rng, tuple(options.size))
        rows += [f"{number},{tracks[who]},{who}\n" for who in range(len(people))]
    (options.out / "people.csv").write_text("camera_id,tracklet_id,person_id\n" + "".join(rows))


def _draw(
    out: Path,
    camera: Camera,
    people: Sequence[Person],
    walks: dict[int, tuple[int, int, float]],
    tracks: np.ndarray,
    rng: np.random.Generator,
    size: tuple[int, int],
) -> None:
    out.mkdir()
    width, height = size
    lines = []
    steps = round(2 * SIDE / STEP)
    background = Canvas.blank(2 * height, 2 * width)
    eye = Eye((width, height * 1.05), 2 * height / 220, camera.pitch, camera.distance)
    draw_place(background, camera.place, eye=eye, light=camera.light, tint=camera.tint)
    folds = rng.integers(-60, 61, (64, 64)).astype(np.int8)
    for frame in range(1, max(begin for begin, *_ in walks.values()) + steps + 1):
        canvas = Canvas(background.pixels.copy(), background.light.copy())
        here = [
            (z, side * (STEP * (frame - 1 - begin) - SIDE), side, who)
            for who, (begin, side, z) in walks.items()
            if 0 <= frame - 1 - begin < steps
        ]
        for z, x, side, who in sorted(here, reverse=True):  # the farthest first
            at = eye._replace(place=(x, z))
            pose = Pose(270 if side > 0 else 90, (100 * frame + 37 * who) % 360)
            draw_person(canvas, people[who], pose, eye=at, light=camera.light, folds=folds)
            left, top, _, _ = at.project((-21, 0, 0))
            right, bottom, _, _ = at.project((21, 102, 0))
            if left < 2 * width and right > 0:  # of pixels of twice the size, counted from 1
                box = (left / 2 + 1, top / 2 + 1, (right - left) / 2, (bottom - top) / 2)
                numbers = ",".join(f"{value:.1f}" for value in box)
                lines.append(f"{frame},{tracks[who]},{numbers},1,-1,-1,-1\n")
        Image.fromarray(camera.expose(canvas.planes(), rng)).save(out / f"{frame:06d}.jpg")
    out.with_suffix(".txt").write_text("".join(lines))


if __name__ == "__main__":
    main()
