"""Round solids, shaded, hiding each other by depth, as a camera above the street sees them.

Lengths are hundredths of a person's height. x runs to the right of the image, y from 0 (the top of
a head) down to 100 (the ground), z away from the camera; a person stands at x = z = 0.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from pplr_lightning.data.drawing.canvas import Canvas, Colour, Paint, Point, cosine, pack, sine

Point3 = tuple[float, float, float]

GROUND = 100.0  # y of the soles
_MIDDLE = 50.0  # y of the point the camera looks at
_LEVELS = 64  # steps of a solid's profile from end to end


class Eye(NamedTuple):
    """Where a camera hangs, and where on the canvas it shows somebody.

    Attributes:
        centre: Pixel (x, y) of the middle of the body at x = z = 0.
        scale: Pixels per unit at that distance.
        pitch: How steeply it looks down, in whole degrees, 0 to 60.
        distance: From the camera to the middle of that body.
        place: What is added to the (x, z) of everything: where the body stands.
    """

    centre: Point
    scale: float
    pitch: int
    distance: float
    place: Point = (0.0, 0.0)

    def project(self, point: Point3) -> tuple[float, float, float, float]:
        """Returns a point's pixel (x, y), its depth, and the pixels per unit there."""
        x, y, z = point[0] + self.place[0], point[1] - _MIDDLE, point[2] + self.place[1]
        down, flat = sine(self.pitch), cosine(self.pitch)
        # What is behind the camera is not drawn; nearly there, it would fill the image.
        depth = max(self.distance / 4, self.distance + z * flat + y * down)
        scale = self.scale * self.distance / depth
        y = y * flat - z * down
        return self.centre[0] + x * scale, self.centre[1] + y * scale, depth, scale


class Light(NamedTuple):
    """Sun and sky.

    Attributes:
        towards: Unit vector to the sun; its y is negative.
        ambient: What the sky alone gives, in percent.
        direct: What the sun adds where it shines straight on, in percent.
    """

    towards: Point3
    ambient: float
    direct: float


class Decal(NamedTuple):
    """A patch of another colour on a solid.

    Attributes:
        colour: RGB, each 0 to 255.
        along: (from, to) on the axis, of its length: 0 at the start, 1 at the end.
        across: (from, to) of the radius, -1 to 1 from the body's right to its left.
        side: ``"front"``, ``"back"`` or ``"all"`` round.
    """

    colour: Colour
    along: Point
    across: Point = (-2.0, 2.0)
    side: str = "front"


class Solid(NamedTuple):
    """A part of a body: a bone with flesh round it.

    Attributes:
        start: One end of the axis.
        end: The other.
        radii: Half the breadth at equal steps from start to end, at least two.
        paint: Its cloth, skin or hair.
        depth: Half the depth, front to back, of half the breadth.
        ends: How blunt the ends are: 1 is round as a ball, 4 nearly flat.
        folds: How strongly its surface varies in brightness, in percent.
        decals: The later ones cover the earlier ones.
    """

    start: Point3
    end: Point3
    radii: tuple[float, ...]
    paint: Paint
    depth: float = 1.0
    ends: float = 1.0
    folds: int = 0
    decals: tuple[Decal, ...] = ()


def turn(point: Point3, degrees: int) -> Point3:
    """Turns a body: by 90 degrees one who faces the camera shows the left side."""
    x, y, z = point
    return x * cosine(degrees) + z * sine(degrees), y, z * cosine(degrees) - x * sine(degrees)


def draw_solid(
    canvas: Canvas,
    depths: np.ndarray,
    solid: Solid,
    *,
    eye: Eye,
    yaw: int,
    light: Light,
    folds: np.ndarray,
) -> None:
    """Draws a solid wherever nothing nearer has been drawn.

    Args:
        canvas: Where to draw; its frame does not matter.
        depths: (H, W) float32: of what is drawn, changed in place; inf where there is nothing.
        solid: What to draw, in the frame of a body that faces the camera.
        eye: The camera.
        yaw: How far the body is turned, in whole degrees, as `turn`.
        light: What lights it.
        folds: (64, 64) int8 texture, -100 to 100.
    """
    ax, ay, near, scale = eye.project(turn(solid.start, yaw))
    bx, by, far, _ = eye.project(turn(solid.end, yaw))
    length = math.sqrt((bx - ax) * (bx - ax) + (by - ay) * (by - ay))
    dx, dy = ((bx - ax) / length, (by - ay) / length) if length > 0.5 else (0.0, 1.0)
    length = max(0.5, length)  # seen from its end, any axis will do
    reach = max(solid.radii) * max(1.0, solid.depth) * scale
    box = canvas.clip(
        math.floor(min(ax, bx) - reach), math.floor(min(ay, by) - reach),
        math.ceil(max(ax, bx) + reach), math.ceil(max(ay, by) + reach),
    )  # fmt: skip
    left, top, right, bottom = box
    if left >= right or top >= bottom:
        return
    xs = np.arange(left, right, dtype=np.float32) - ax
    ys = (np.arange(top, bottom, dtype=np.float32) - ay)[:, None]
    along = xs * dx + ys * dy
    inner = np.minimum(np.maximum(along, 0), length)
    steps = (inner * ((_LEVELS - 1) / length)).astype(np.int32)
    radius = _profile(solid.radii, scale)[steps]
    # In units of the radius there, the surface is x**2 + (z / depth)**2 = 1 - beyond**2, turned.
    x = (ys * dx - xs * dy) / radius
    beyond = (along - inner) * solid.ends / radius
    c, s, flat = cosine(yaw), sine(yaw), 1 / (solid.depth * solid.depth)
    if dy >= 0:
        x = -x  # to the right of the image, whichever way the axis runs
    xx, xz, zz = c * c + s * s * flat, c * s * (flat - 1), s * s + c * c * flat
    under_root = (1 - beyond * beyond) * zz - x * x * flat
    inside = under_root > 0
    root = np.sqrt(under_root[inside])
    x, beyond, along, inner = x[inside], beyond[inside], along[inside], inner[inside]
    z = (x * -xz - root) / zz
    depth = inner * ((far - near) / length) + near + z * radius[inside] / scale
    window = depths[top:bottom, left:right]
    nearer = depth < window[inside]
    inside[inside] = nearer
    if not nearer.any():
        return
    x, beyond, along, inner, z, root, depth = (
        values[nearer] for values in (x, beyond, along, inner, z, root, depth)
    )
    window[inside] = depth
    # The surface's normal, not yet of length 1: across the axis, along it, and towards the camera.
    across = x * xx + z * xz
    lx, ly, lz = light.towards
    down, level = sine(eye.pitch), cosine(eye.pitch)
    ly, lz = ly * level - lz * down, lz * level + ly * down  # as the camera sees it
    sideways = lx * dy - ly * dx if dy >= 0 else ly * dx - lx * dy
    lit = across * sideways + beyond * (lx * dx + ly * dy) - root * lz
    lit = lit / np.sqrt(across * across + beyond * beyond + root * root)
    body_x, body_z = x * c - z * s, x * s + z * c
    shine = np.maximum(lit, 0) * light.direct + light.ambient
    # The same place of the cloth has the same fold from wherever it is seen.
    units = along / scale
    if solid.folds:
        rows = (units * 1.5 + (256 + 7 * solid.start[0])).astype(np.int32) & 63
        columns = (body_x * 5 + (64 + solid.start[1])).astype(np.int32) & 63
        shine = shine * (folds[rows, columns] * (solid.folds / 10_000) + 1)
    canvas.light[top:bottom, left:right][inside] = shine.astype(np.uint16)
    colours = _colours(solid, units, body_x, inner / length, body_z, max(solid.radii))
    canvas.pixels[top:bottom, left:right][inside] = colours


def _profile(radii: tuple[float, ...], scale: float) -> np.ndarray:
    """Returns the radius at `_LEVELS` places of an axis, in pixels, at least half of one."""
    table, parts = [], len(radii) - 1
    for level in range(_LEVELS):
        place = level * parts / (_LEVELS - 1)
        part = min(int(place), parts - 1)
        radius = radii[part] + (radii[part + 1] - radii[part]) * (place - part)
        table.append(max(0.5, radius * scale))
    return np.array(table, dtype=np.float32)


def _colours(
    solid: Solid,
    units: np.ndarray,
    body_x: np.ndarray,
    along: np.ndarray,
    body_z: np.ndarray,
    radius: float,
) -> np.ndarray:
    paint = solid.paint
    colours = np.full(units.shape, pack(paint.colour), dtype=np.uint32)
    if paint.pattern != "plain":
        # 64 periods more, so that no number is negative: astype cuts towards 0.
        stripes = (units / paint.period + 64).astype(np.int32) & 1
        bars = (body_x * (radius / paint.period) + 64).astype(np.int32) & 1
        second = {"stripes": stripes, "bars": bars, "checks": stripes ^ bars}[paint.pattern]
        colours[second == 1] = pack(paint.second)
    for decal in solid.decals:
        patch = (along >= decal.along[0]) & (along <= decal.along[1])
        patch &= (body_x >= decal.across[0]) & (body_x <= decal.across[1])
        if decal.side != "all":
            patch &= body_z < 0 if decal.side == "front" else body_z > 0
        colours[patch] = pack(decal.colour)
    return colours
