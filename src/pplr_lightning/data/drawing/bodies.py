"""Draws a person: a walking body of round solids, dressed, with its shadow.

Lengths are hundredths of the body height, in the frame of `solids`: y runs from 0 (top of the head)
to 100 (soles); a body that faces the camera has its left at positive x, its front at negative z.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from pplr_lightning.data.drawing.canvas import Canvas, Paint, cosine, shade, sine
from pplr_lightning.data.drawing.people import Person
from pplr_lightning.data.drawing.solids import (
    GROUND,
    Decal,
    Eye,
    Light,
    Point3,
    Solid,
    draw_solid,
    turn,
)

_COAT = 56.0  # a jacket of a lower hem has a skirt
_CLOTH, _HAIR, _SKIN = 15, 18, 3  # how strongly each is folded


class Pose(NamedTuple):
    """How somebody stands; all angles in whole degrees.

    Attributes:
        yaw: 0 faces the camera, 90 shows the left side, 180 the back, 270 the right side.
        phase: Where in the walking cycle the legs are.
        stride: How far the legs swing, 0 (stands) to about 30.
        bends: How far the (right, left) elbow is bent, 0 to about 130.
    """

    yaw: int = 0
    phase: int = 0
    stride: int = 24
    bends: tuple[int, int] = (20, 20)


def draw_person(
    canvas: Canvas, person: Person, pose: Pose, *, eye: Eye, light: Light, folds: np.ndarray
) -> None:
    """Draws a person over what the canvas shows.

    Args:
        canvas: Where to draw; its frame does not matter.
        person: Whom to draw.
        pose: How they stand.
        eye: The camera.
        light: What lights them.
        folds: (64, 64) int8 texture of their cloth, -100 to 100.
    """
    depths = np.full(canvas.pixels.shape, np.inf, dtype=np.float32)
    for solid in body_of(person, pose):
        draw_solid(canvas, depths, solid, eye=eye, yaw=pose.yaw, light=light, folds=folds)


def cast_shadow(shadow: np.ndarray, person: Person, pose: Pose, *, eye: Eye, light: Light) -> None:
    """Marks where a person keeps the sun off the ground.

    Args:
        shadow: (H, W) bool, in which it is set.
        person: Who casts it.
        pose: How they stand.
        eye: The camera.
        light: Its sun.
    """
    canvas = Canvas(shadow.view(np.uint8), np.zeros(shadow.shape, np.uint16))
    sun_x, sun_y, sun_z = light.towards
    for solid in body_of(person, pose):
        ends = []
        for x, y, z in (turn(solid.start, pose.yaw), turn(solid.end, pose.yaw)):
            away = (y - GROUND) / -sun_y
            ends.append(eye.project((x + away * sun_x, GROUND, z + away * sun_z)))
        (ax, ay, _, scale), (bx, by, _, _) = ends
        # A ball's shadow on the ground, seen at a slant.
        wide = max(solid.radii) * scale
        high = wide * max(0.25, sine(eye.pitch))
        for part in range(7):
            middle = (ax + (bx - ax) * part / 6, ay + (by - ay) * part / 6)
            canvas.ellipse(middle, (wide, high), Paint((1, 0, 0)))


def body_of(person: Person, pose: Pose) -> Iterator[Solid]:
    """Yields the solids that a person is made of, in the frame of a body that faces the camera."""
    stride = min(pose.stride, 11) if _hindered(person) else pose.stride
    swing = stride * sine(pose.phase)
    for side, bend in zip((-1, 1), pose.bends, strict=True):
        # A leg lags behind the other by half a cycle, and lifts its foot on its way to the front.
        lift = max(0.0, -side * cosine(pose.phase)) * min(1.0, stride / 20)
        yield from _leg(person, side, round(swing * side), round(6 + 38 * lift))
        yield from _arm(person, side, round(-swing * side * 0.8), bend)
    yield from _trunk(person)
    yield from _head(person)
    yield from _bag(person)


def _hindered(person: Person) -> bool:
    """Tells whether somebody wears a skirt or a long coat, under which legs begin."""
    return person.lower.kind == "skirt" or person.upper.hem > _COAT


def _bone(start: Point3, degrees: int, length: float) -> Point3:
    """Returns the lower end of a bone that hangs from `start`, swung `degrees` to the front."""
    x, y, z = start
    return x, y + length * cosine(degrees), z - length * sine(degrees)


def _leg(person: Person, side: int, swing: int, bend: int) -> Iterator[Solid]:
    lower, build = person.lower, person.build
    hip = (side * 4.4 * build, 51.0, 0.0)
    knee = _bone(hip, swing, 22)
    ankle = _bone(knee, swing - bend, 22.5)
    skin = Paint(person.skin)
    long = lower.kind == "trousers"
    bare = lower.paint if long else skin
    shorts = lower.kind == "shorts"
    start = _bone(hip, swing, 9) if _hindered(person) else hip
    yield Solid(
        start, knee, (6.6 * build, 6.2 * build, 4.8 * build), lower.paint if shorts else bare,
        folds=_SKIN if lower.kind == "skirt" else _CLOTH,
        decals=(Decal(person.skin, (0.85, 2), side="all"),) if shorts else (),
    )  # fmt: skip
    calf = (4.7, 4.4, 3.7) if long else (4.0, 3.9, 2.6)
    yield Solid(
        knee, ankle, tuple(radius * build for radius in calf), bare, folds=_CLOTH if long else _SKIN
    )  # fmt: skip
    heel = (ankle[0], ankle[1] + 2.2, ankle[2] + 1.5)
    toe = _bone(heel, 90 - min(40, max(0, bend - swing - 10)), 7.5)
    yield Solid(heel, toe, (2.8, 2.9, 2.4), Paint(person.shoes), depth=0.9)


def _arm(person: Person, side: int, swing: int, bend: int) -> Iterator[Solid]:
    upper, build = person.upper, person.build
    shoulder = (side * 9.6 * build, 20.8, 0.5)
    elbow = _bone(shoulder, swing - 4, 15.5)
    elbow = (elbow[0] + side * 1.6, elbow[1], elbow[2])
    wrist = _bone(elbow, swing + bend, 14)
    skin, short = Paint(person.skin), upper.kind == "shirt"
    yield Solid(shoulder, elbow, (3.6 * build, 3.5 * build, 3.2 * build), upper.paint, folds=_CLOTH)
    yield Solid(
        elbow, wrist, (2.7, 2.6, 2.0) if short else (3.3 * build, 3.2 * build, 2.8 * build),
        skin if short else upper.paint, folds=_SKIN if short else _CLOTH,
    )  # fmt: skip
    hand = _bone(wrist, swing + bend, 3.5)
    yield Solid(wrist, hand, (1.8, 2.3, 1.7), skin, depth=0.8)


def _trunk(person: Person) -> Iterator[Solid]:
    upper, lower, build = person.upper, person.lower, person.build
    decals: list[Decal] = []
    if upper.kind == "jacket":
        gap = upper.opening / 10
        decals.append(Decal(upper.inner, (-1, 2), (-gap, gap)))
    elif upper.logo:
        decals.append(Decal(upper.logo, (0.12, 0.42), (-0.5, 0.5)))
    decals.append(Decal(shade(person.skin, 85), (-1, 0.02), (-0.3, 0.3)))
    if person.bag == "backpack":
        for side in (-1, 1):
            middle = 0.62 * side
            decals.append(Decal(person.bag_colour, (-1, 0.6), (middle - 0.1, middle + 0.1)))
    radii = tuple(radius * build for radius in (8.4, 10.2, 10.4, 9.7, 9.1, 9.0, 9.6))
    depth = 0.62 + 0.5 * (build - 0.88)
    yield Solid(
        (0.0, 18.5, 0.0), (0.0, min(upper.hem, 54.0) - 1.5, 0.0), radii, upper.paint, depth=depth,
        ends=3.0, folds=_CLOTH, decals=tuple(decals),
    )  # fmt: skip
    if upper.hem > _COAT:  # a coat's skirt, which legs move in
        yield Solid(
            (0.0, 44.0, 0.0), (0.0, upper.hem, 0.0), (9.4 * build, 11.0 * build, 12.4 * build),
            upper.paint, depth=0.85, ends=4.0, folds=_CLOTH, decals=tuple(decals[:1]),
        )  # fmt: skip
    yield Solid(
        (0.0, 48.0, 0.0), (0.0, 53.0, 0.4), (8.6 * build, 9.0 * build, 8.4 * build), lower.paint,
        depth=0.62, ends=2.0, folds=_CLOTH,
    )  # fmt: skip
    if lower.kind == "skirt":
        yield Solid(
            (0.0, 47.0, 0.0), (0.0, 69.0, 0.0), (9.2 * build, 11.0 * build, 13.2 * build),
            lower.paint, depth=0.95, ends=4.0, folds=2 * _CLOTH,
        )  # fmt: skip


def _head(person: Person) -> Iterator[Solid]:
    skin, hair, style = Paint(person.skin), Paint(person.hair), person.hair_style
    yield Solid((0.0, 11.0, 1.0), (0.0, 18.0, 0.8), (2.9, 3.0), Paint(shade(person.skin, 90)))
    sockets = Decal(shade(person.skin, 70), (0.46, 0.64), (-0.62, 0.62))
    nose = Decal(person.skin, (0.46, 0.64), (-0.16, 0.16))
    mouth = Decal(shade(person.skin, 82), (1.0, 1.2), (-0.3, 0.3))
    top = 0.02 if style in ("short", "cap") else 0.2
    face = (Decal(person.skin, (top, 3), (-0.86, 0.86)), sockets, nose, mouth)
    bare = style == "bald"
    yield Solid(
        (0.0, 5.2, 0.0), (0.0, 9.4, -0.6), (5.2, 5.1, 4.3), skin if bare else hair, depth=1.16,
        folds=_SKIN if bare else _HAIR, decals=face,
    )  # fmt: skip
    if style == "long":
        yield Solid(
            (0.0, 6.0, 2.0), (0.0, 24.0, 5.4), (5.6, 6.4, 6.0), hair, depth=0.6, ends=1.5,
            folds=2 * _HAIR,
        )  # fmt: skip
    elif style == "bun":
        yield Solid((0.0, 3.5, 6.0), (0.0, 4.5, 6.5), (3.0, 3.0), hair, folds=_HAIR)
    elif style == "cap":
        yield Solid((0.0, 4.2, 0.2), (0.0, 5.0, 0.0), (5.6, 5.8), hair, depth=1.15, ends=1.3)
        dark = Paint(shade(person.hair, 80))
        yield Solid((-2.8, 6.2, -7.0), (2.8, 6.2, -7.0), (1.3, 1.3), dark, depth=2.0)


def _bag(person: Person) -> Iterator[Solid]:
    bag, dark = Paint(person.bag_colour), Paint(shade(person.bag_colour, 65))
    build = person.build
    if person.bag == "backpack":
        back = 6.5 * build
        pocket = Decal(dark.colour, (0.55, 0.98), (-0.66, 0.66), "back")
        yield Solid(
            (0.0, 22.0, back), (0.0, 41.0, back + 1.5), (6.6, 7.4, 7.8, 7.4), bag, depth=0.66,
            ends=2.5, folds=6, decals=(pocket,),
        )  # fmt: skip
    elif person.bag == "handbag":
        side = 1 if person.bag_side == "left" else -1
        x = 14.2 * build * side
        flap = Decal(dark.colour, (-1, 0.25), side="all")
        yield Solid(
            (x, 46.0, 0.0), (x, 57.0, 0.0), (2.4, 2.8, 2.8), bag, depth=2.6, ends=3.0, folds=5,
            decals=(flap,),
        )  # fmt: skip
        yield Solid((9.5 * build * side, 17.5, 0.0), (x, 45.0, 0.0), (0.8, 0.8), dark)
