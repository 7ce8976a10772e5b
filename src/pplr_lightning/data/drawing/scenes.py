"""Draws one person crop: background, person, what stands in front, seen by a camera.

Lengths are hundredths of the image height: x runs from 0 to ``width``, y from 0 to 100.
"""

from __future__ import annotations

import math

import numpy as np

from pplr_lightning.data.drawing.bodies import VIEWS, draw_person
from pplr_lightning.data.drawing.cameras import Camera
from pplr_lightning.data.drawing.canvas import Canvas, Colour, Paint, shade
from pplr_lightning.data.drawing.people import CLOTH, Person, between, chance, make_person, pick

OCCLUDERS = ("pole", "car", "bench", "bush", "person")


def draw_crop(
    person: Person | None,
    camera: Camera,
    rng: np.random.Generator,
    *,
    view: str = "front",
    image_size: tuple[int, int] = (128, 64),
    occlusion: float = 0.0,
    badly_cropped: bool = False,
) -> np.ndarray:
    """Draws what a detector cuts out of a camera's picture.

    Args:
        person: Whom the crop shows; None for background only.
        camera: The camera that sees them.
        rng: Source of all that varies between two images of the same person and camera.
        view: The side of the person that shows: ``"front"``, ``"back"``, ``"left"``, ``"right"``.
        image_size: (height, width) in pixels.
        occlusion: Probability that something hides part of the person, 0 to 1.
        badly_cropped: Whether the crop misses much of the person.

    Returns:
        (height, width, 3) uint8.
    """
    height, width = image_size
    # Drawn at twice the size: averaging four pixels smooths the edges.
    pixels = Canvas.blank(2 * height, 2 * width)
    canvas = pixels.frame((0, 0), (height / 50, height / 50))
    span = 100 * width / height
    _draw_background(canvas, span, camera, rng)
    if person is not None:
        body = _place(canvas, span, camera, rng, badly_cropped=badly_cropped)
        draw_person(body, person, view=view, phase=between(rng, 0, 2 * math.pi))
    if chance(rng, occlusion):
        _draw_occluder(canvas, span, pick(rng, OCCLUDERS), rng)
    return camera.expose(pixels.planes(), rng)


def _place(
    canvas: Canvas, span: float, camera: Camera, rng: np.random.Generator, *, badly_cropped: bool
) -> Canvas:
    """Returns the frame to draw the person in, as well as a detector finds them."""
    # A person is about 40 wide for 100 high: narrow crops cut that down.
    size = between(rng, 0.84, 0.97) * min(1.0, span / 40)
    x, top = span / 2 + between(rng, -0.06, 0.06) * span, 50 - 50 * size + between(rng, -4, 4)
    if badly_cropped and chance(rng, 0.5):  # a part of the body, much enlarged
        size *= between(rng, 1.7, 2.6)
        top = between(rng, 8, 92 - 100 * size)
    elif badly_cropped:  # a person at the rim
        x += pick(rng, (-1, 1)) * between(rng, 0.4, 0.55) * span
    elif chance(rng, 0.12):  # detectors now and then cut feet off or leave a wide margin
        size *= between(rng, 0.75, 1.25)
        top = max(between(rng, -6, 6), 50 - 50 * size)
    return canvas.frame((x, top), (size * camera.stretch, size))


def _draw_background(canvas: Canvas, span: float, camera: Camera, rng: np.random.Generator) -> None:
    def paint(red: int, green: int, blue: int) -> Paint:
        return Paint(_light_up((red, green, blue), camera.tint, rng))

    scene, x = camera.pick_scene(rng), between(rng, 0, span)
    if scene == "street":
        horizon, near = between(rng, 30, 50), 2 * x - span / 2
        canvas.rectangle(0, 0, span, horizon, paint(158, 150, 142))
        for window in (x - 34, x - 12, x + 10, x + 32):
            canvas.rectangle(window, 4, window + 13, horizon - 14, paint(84, 96, 112))
        canvas.rectangle(0, horizon, span, 100, paint(118, 118, 120))
        canvas.rectangle(0, horizon, span, horizon + 3, paint(182, 180, 174))
        lane = [(x, horizon + 3), (x + 3, horizon + 3), (near + 8, 100), (near, 100)]
        canvas.polygon(lane, paint(206, 204, 196))
    elif scene == "wall":
        brick, pattern = paint(160, 128, 112), pick(rng, ("plain", "stripes", "bars"))
        bricks = Paint(brick.colour, pattern, shade(brick.colour, 92), 7)
        canvas.frame((x, 0)).rectangle(-span, 0, span, 100, bricks)
        canvas.rectangle(0, between(rng, 80, 94), span, 100, paint(124, 120, 116))
    elif scene == "tiles":
        floor, tile = between(rng, 15, 60), paint(186, 184, 178)
        canvas.rectangle(0, 0, span, 100, paint(208, 206, 200))
        tiles = Paint(tile.colour, "checks", shade(tile.colour, 86), 14)
        canvas.frame((x, floor)).rectangle(-span, 0, span, 100, tiles)
    else:
        horizon = between(rng, 12, 45)
        canvas.rectangle(0, 0, span, 100, paint(104, 138, 78))
        canvas.rectangle(0, 0, span, horizon, paint(178, 196, 208))
        for _ in range(4):
            bush = (between(rng, 0, span), horizon)
            canvas.ellipse(bush, (between(rng, 6, 16), between(rng, 5, 16)), paint(66, 98, 58))
    _draw_details(canvas, span, rng)


def _light_up(colour: Colour, tint: Colour, rng: np.random.Generator) -> Colour:
    """Varies a colour of the surroundings in brightness and, less so, in hue."""
    light = int(rng.integers(-22, 23))
    red, green, blue = (
        min(255, max(0, channel + offset + light + int(rng.integers(-8, 9))))
        for channel, offset in zip(colour, tint, strict=True)
    )
    return red, green, blue


def _draw_details(canvas: Canvas, span: float, rng: np.random.Generator) -> None:
    """Draws things that come and go: signs, lamp posts, bins, people far away."""
    for _ in range(int(rng.integers(1, 5))):
        x, y, paint = between(rng, 0, span), between(rng, 0, 90), Paint(pick(rng, CLOTH))
        kind = int(rng.integers(4))
        if kind == 0:
            canvas.rectangle(x, y, x + between(rng, 4, 16), y + between(rng, 4, 20), paint)
        elif kind == 1:
            canvas.rectangle(x, 0, x + between(rng, 1, 4), 80, paint)
        elif kind == 2:
            canvas.ellipse((x, y), (between(rng, 2, 8), between(rng, 2, 8)), paint)
        else:
            _draw_passer_by(canvas, x, between(rng, 15, 30), between(rng, 0.25, 0.45), rng)


def _draw_passer_by(
    canvas: Canvas, x: float, top: float, size: float, rng: np.random.Generator
) -> None:
    person = make_person(0, int(rng.integers(2**31)))
    body = canvas.frame((x, top), (size, size))
    draw_person(body, person, view=pick(rng, VIEWS), phase=between(rng, 0, 2 * math.pi))


def _draw_occluder(canvas: Canvas, span: float, kind: str, rng: np.random.Generator) -> None:
    x, top, paint = between(rng, 0, span), between(rng, 58, 74), Paint(pick(rng, CLOTH))
    dark = Paint(shade(paint.colour, 55))
    if kind == "pole":
        x, wide = span / 2 + between(rng, -0.25, 0.25) * span, between(rng, 4, 9)
        canvas.rectangle(x, 0, x + wide, 100, paint)
        canvas.rectangle(x + wide * 0.7, 0, x + wide, 100, dark)
    elif kind == "car":
        for low, high, gap, colour in ((42, 26, 0, paint), (33, 23, 3, Paint((74, 86, 96)))):
            edges = [(x - low, top + 14), (x - high, top + gap)]
            canvas.polygon([*edges, (x + high, top + gap), (x + low, top + 14)], colour)
        canvas.rectangle(x - 60, top + 13, x + 60, 97, paint)
        for wheel in (x - 36, x + 36):
            canvas.ellipse((wheel, 96), (11, 11), Paint((28, 28, 30)))
    elif kind == "bench":
        for slat in range(4):
            y = top + 7 * slat
            canvas.rectangle(x - 45, y, x + 45, y + 5, Paint((128, 92, 60)))
        for leg in (x - 30, x + 30):
            canvas.rectangle(leg, top, leg + 4, 100, Paint((58, 58, 62)))
    elif kind == "bush":
        for _ in range(9):
            leaves = Paint(shade((70, 112, 60), int(rng.integers(70, 125))))
            centre = (between(rng, -4, span + 4), between(rng, top + 8, 100))
            canvas.ellipse(centre, (between(rng, 7, 13), between(rng, 6, 11)), leaves)
    else:
        side = pick(rng, (-1, 1)) * between(rng, 0.28, 0.42)
        _draw_passer_by(canvas, span / 2 + side * span, between(rng, 2, 20), 1.0, rng)
