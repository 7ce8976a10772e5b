"""Places that cameras look at: ground, a wall behind it, things that stand about.

Lengths are hundredths of a person's height, in the frame of `solids`; a place is some 1,000 wide.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from pplr_lightning.data.drawing.canvas import (
    Canvas,
    Colour,
    Paint,
    cosine,
    pack,
    shade,
    sine,
)
from pplr_lightning.data.drawing.people import CLOTH, between, chance, pick, stream
from pplr_lightning.data.drawing.solids import GROUND, Eye, Light

PLACES = 8  # of one seed
THINGS = ("pole", "bin", "car", "bench", "bush", "board")

_PLACE = 8  # first word of the key of a place's stream, as in people.py
_SIDE = 64  # of a square of grain

_GROUNDS: dict[str, tuple[Colour, ...]] = {
    "asphalt": ((112, 112, 114), (96, 98, 102), (128, 124, 120)),
    "tiles": ((176, 170, 160), (150, 148, 146), (186, 160, 138)),
    "slabs": ((160, 158, 152), (138, 130, 122), (170, 168, 170)),
    "grass": ((92, 116, 66), (110, 122, 74), (78, 104, 62)),
    "floor": ((190, 184, 172), (148, 156, 162), (172, 150, 128)),
}
_WALLS: dict[str, tuple[Colour, ...]] = {
    "bricks": ((150, 112, 92), (168, 146, 124), (126, 104, 98)),
    "plaster": ((178, 172, 160), (150, 156, 164), (190, 176, 148)),
    "windows": ((160, 152, 144), (134, 136, 142), (176, 166, 150)),
    "hedge": ((66, 90, 52), (82, 100, 60), (58, 82, 56)),
}


class Thing(NamedTuple):
    """Something that stands about.

    Attributes:
        kind: One of `THINGS`.
        x: Where, from left to right.
        z: How far away.
        colour: RGB, each 0 to 255.
        size: Against the usual one.
    """

    kind: str
    x: float
    z: float
    colour: Colour
    size: float


@dataclass(frozen=True, eq=False)
class Place:
    """A piece of a street, a yard, a hall or a park.

    Attributes:
        ground: What one walks on.
        ground_colour: Its colour.
        tile: The side of one tile of it.
        wall: What stands behind.
        wall_colour: Its colour.
        distance: Where it stands: its z.
        line: (x, slant) of a line painted on the ground, None for none.
        shade: (x, slant) of the edge of a building's shadow, None for none; it is left of the edge.
        things: What stands about, the farthest first.
        grain: (64, 64) int16: how uneven surfaces are, -100 to 100.
    """

    ground: str
    ground_colour: Colour
    tile: float
    wall: str
    wall_colour: Colour
    distance: float
    line: tuple[float, float] | None
    shade: tuple[float, float] | None
    things: tuple[Thing, ...]
    grain: np.ndarray

    def in_shade(self, x: float, z: float) -> bool:
        """Tells whether a building keeps the sun off a point of the ground."""
        return self.shade is not None and x + self.shade[1] * z < self.shade[0]


@lru_cache(maxsize=4 * PLACES)
def make_place(seed: int, number: int) -> Place:
    """Makes up the place of a number; both are not negative."""
    rng = stream(seed, _PLACE, number)
    # Neighbouring numbers differ, so that a handful of cameras has seen most kinds.
    ground, wall = tuple(_GROUNDS)[number % 5], tuple(_WALLS)[(number + number // 4) % 4]
    distance = between(rng, 160, 500)
    things = [
        Thing(
            pick(rng, THINGS), between(rng, -500, 500), between(rng, 40, distance - 20),
            pick(rng, CLOTH), between(rng, 0.8, 1.2),
        )
        for _ in range(10)
    ]  # fmt: skip
    grain = coarse = rng.integers(-100, 101, (_SIDE, _SIDE), dtype=np.int32)
    for _ in range(3):  # half of it is coarse, half of it fine; it joins at its rims
        rows = coarse + np.roll(coarse, 1, axis=0) + np.roll(coarse, -1, axis=0)
        coarse = (rows + np.roll(rows, 1, axis=1) + np.roll(rows, -1, axis=1)) // 6
    return Place(
        ground=ground,
        ground_colour=pick(rng, _GROUNDS[ground]),
        tile=between(rng, 14, 40),
        wall=wall,
        wall_colour=pick(rng, _WALLS[wall]),
        distance=distance,
        line=(between(rng, -200, 200), between(rng, -1, 1)) if chance(rng, 0.5) else None,
        shade=(between(rng, -300, 200), between(rng, -1, 1)) if chance(rng, 0.6) else None,
        things=tuple(sorted(things, key=lambda thing: -thing.z)),
        grain=np.clip((coarse + grain) // 2, -100, 100).astype(np.int16),
    )


def draw_place(
    canvas: Canvas, place: Place, *, eye: Eye, light: Light, tint: Colour = (0, 0, 0)
) -> None:
    """Fills the canvas with ground, wall and sky.

    Args:
        canvas: Where to draw; its frame does not matter.
        place: What to draw.
        eye: The camera; its `place` is minus the point of the place in its middle.
        light: The sun and the sky.
        tint: What is added to red, green and blue, in levels.
    """
    height, width = canvas.pixels.shape
    down, flat = sine(eye.pitch), cosine(eye.pitch)
    x, z = -eye.place[0], -eye.place[1]
    across = (np.arange(width, dtype=np.float32) - eye.centre[0]) / eye.scale
    rows = (np.arange(height, dtype=np.float32) - eye.centre[1]) / eye.scale
    # Where a row's rays go: down and away; how far until the ground and until the wall.
    falls, leaves = rows * flat + eye.distance * down, eye.distance * flat - rows * down
    above = GROUND / 2 + eye.distance * down
    to_wall = (place.distance - z + eye.distance * flat) / np.maximum(leaves, 1)
    horizon = int((falls * to_wall < above).sum())  # a count: the rows above the wall's foot
    if horizon:
        far = to_wall[:horizon]
        heights = above - falls[:horizon] * far
        _draw_wall(canvas, place, across * far[:, None] + x, heights, light, tint)
    if horizon < height:
        far = above / falls[horizon:]
        depth = far * leaves[horizon:] - eye.distance * flat + z
        _draw_ground(canvas, place, across * far[:, None] + x, depth, light, tint)


def draw_thing(canvas: Canvas, thing: Thing, *, eye: Eye, rng: np.random.Generator) -> None:
    """Draws one thing of a place over what the canvas shows; `rng` draws a bush's leaves."""
    x, z, size, paint = thing.x, thing.z, thing.size, Paint(thing.colour)
    foot_x, foot_y, _, scale = eye.project((x, GROUND, z))
    pixels = canvas.pixels.shape
    if not -300 * scale < foot_x < pixels[1] + 300 * scale:
        return
    standing = Canvas(
        canvas.pixels,
        canvas.light,
        origin=(foot_x, foot_y),
        scale=(scale, scale * cosine(eye.pitch)),
    )
    dark, slant = Paint(shade(thing.colour, 55)), sine(eye.pitch) / max(0.3, cosine(eye.pitch))
    if thing.kind == "pole":
        standing.rectangle(-3 * size, -260, 3 * size, 0, paint)
        standing.rectangle(1 * size, -260, 3 * size, 0, dark)
    elif thing.kind == "bin":
        _draw_box(standing, (-18 * size, 18 * size), 50 * size, 34 * slant, thing.colour)
    elif thing.kind == "board":
        standing.rectangle(-2, -60, 2, 0, Paint((80, 80, 84)))
        _draw_box(standing.frame((0, -45)), (-30 * size, 30 * size), 46 * size, 3, thing.colour)
    elif thing.kind == "car":
        _draw_box(standing.frame((0, -10)), (-125, 125), 34, 30 * slant, thing.colour)
        roof = -74 - 30 * slant
        glass = [(-88, -40), (-56, roof), (60, roof), (100, -40)]
        standing.polygon(glass, Paint((62, 72, 82)))
        standing.rectangle(-56, roof - 16 * slant, 60, roof, Paint(shade(thing.colour, 112)))
        standing.rectangle(0, roof, 4, -40, Paint(shade(thing.colour, 82)))
        for wheel in (-78, 78):
            standing.ellipse((wheel, -16), (17, 17), Paint((30, 30, 32)))
            standing.ellipse((wheel, -16), (8, 8), Paint((120, 120, 124)))
    elif thing.kind == "bench":
        for leg in (-40, 36):
            standing.rectangle(leg, -44, leg + 5, 0, Paint((58, 58, 62)))
        for slat in range(4):
            y = -48 + 8 * slat
            standing.rectangle(-48, y, 48, y + 5, Paint(shade((128, 96, 66), 100 - 6 * slat)))
    else:
        for _ in range(16):
            leaves = Paint(shade((74, 104, 58), int(rng.integers(60, 120))))
            centre = (between(rng, -38, 38) * size, between(rng, -58, -12) * size)
            radii = (between(rng, 8, 15) * size, between(rng, 7, 12) * size)
            standing.ellipse(centre, radii, leaves)


def _draw_box(
    canvas: Canvas, sides: tuple[float, float], high: float, top: float, colour: Colour
) -> None:
    """Draws a box: its front and its lid, which shows the more the steeper one looks down."""
    left, right = sides
    inset = top * 0.2
    canvas.polygon(
        [(left, -high), (right, -high), (right - inset, -high - top), (left + inset, -high - top)],
        Paint(shade(colour, 115)),
    )  # fmt: skip
    canvas.rectangle(left, -high, right, 0, Paint(shade(colour, 82)))
    canvas.rectangle(left, -high * 0.15, right, 0, Paint(shade(colour, 60)))


def _draw_ground(
    canvas: Canvas, place: Place, x: np.ndarray, z: np.ndarray, light: Light, tint: Colour
) -> None:
    """Draws the ground's rows; `x` is (rows, width), `z` is (rows,)."""
    first = canvas.pixels.shape[0] - len(z)
    pixels, lit = canvas.pixels[first:], canvas.light[first:]
    colour = _tinted(place.ground_colour, tint)
    pixels[:] = pack(colour)
    rows = z[:, None]
    if place.ground in ("tiles", "slabs", "floor"):
        right, back = (x + 4096) / place.tile, (rows + 4096) / place.tile
        columns, lines = right.astype(np.int32), back.astype(np.int32)
        if place.ground == "floor":
            pixels[(columns + lines) & 1 == 1] = pack(shade(colour, 84))
        else:
            seam = 0.05 if place.ground == "tiles" else 0.025
            pixels[(right - columns < seam) | (back - lines < 2 * seam)] = pack(shade(colour, 76))
    if place.line is not None and place.ground != "grass":
        middle = x + rows * place.line[1] - place.line[0]
        pixels[(middle > -5) & (middle < 5)] = pack((206, 204, 196))
    rough = {"grass": 0.30, "asphalt": 0.14}.get(place.ground, 0.08)
    level = light.ambient - light.direct * light.towards[1]
    bright = _grain(place, x, rows) * (level * rough / 100) + level
    if place.shade is not None:
        shaded = x + rows * place.shade[1] < place.shade[0]
        bright = np.where(shaded, bright * ((light.ambient + 14) / level), bright)
    lit[:] = bright.astype(np.uint16)


def _draw_wall(
    canvas: Canvas, place: Place, x: np.ndarray, heights: np.ndarray, light: Light, tint: Colour
) -> None:
    """Draws the rows of wall; `x` is (rows, width), `heights` above the ground is (rows,)."""
    pixels, lit = canvas.pixels[: len(heights)], canvas.light[: len(heights)]
    colour, rows = _tinted(place.wall_colour, tint), heights[:, None]
    pixels[:] = pack(colour)
    if place.wall == "bricks":
        up = (rows + 64) / 9
        courses = up.astype(np.int32)
        along = (x + 4096) / 26 + (courses & 1) * 0.5
        pixels[(up - courses < 0.14) | (along - along.astype(np.int32) < 0.05)] = pack(
            shade(colour, 125)
        )
    elif place.wall == "windows":
        along, up = (x + 4096) / 110, (rows + 40) / 130
        along, up = along - along.astype(np.int32), up - up.astype(np.int32)
        frame = (along > 0.2) & (along < 0.8) & (up > 0.3) & (up < 0.9)
        glass = (along > 0.23) & (along < 0.77) & (up > 0.33) & (up < 0.87)
        pixels[frame] = pack(shade(colour, 130))
        pixels[glass] = pack((70, 82, 94))
    elif place.wall == "plaster":
        pixels[np.broadcast_to(rows < 22, x.shape)] = pack(shade(colour, 78))
    rough = 0.5 if place.wall == "hedge" else 0.08
    level = light.ambient - light.direct * min(0.0, light.towards[2])
    lit[:] = (_grain(place, x, rows) * (level * rough / 100) + level).astype(np.uint16)
    top = 120.0 if place.wall == "hedge" else 380.0
    sky = heights > top
    pixels[sky] = pack((196, 206, 216))
    lit[sky] = 100


def _grain(place: Place, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Returns how uneven a surface is at its points (x, y), -100 to 100."""
    rows, columns = ((y + 8192) * 0.4).astype(np.int32), ((x + 8192) * 0.4).astype(np.int32)
    fine = place.grain[rows % _SIDE, columns % _SIDE]
    return (fine + place.grain[(rows >> 4) % _SIDE, (columns >> 4) % _SIDE]) // 2


def _tinted(colour: Colour, tint: Colour) -> Colour:
    red, green, blue = (
        min(255, max(0, channel + offset)) for channel, offset in zip(colour, tint, strict=True)
    )
    return red, green, blue
