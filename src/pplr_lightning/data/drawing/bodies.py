"""Draws a person: an articulated figure seen from the front, the back or either side.

Lengths are hundredths of the body height: y runs from 0 (top of the head) to 100 (soles), x from
the body's axis to the right of the image.
"""

from __future__ import annotations

import math
from typing import NamedTuple

from pplr_lightning.data.drawing.canvas import Canvas, Paint, Point, shade
from pplr_lightning.data.drawing.people import Person

# "left" and "right" show that side of the person, who then faces that side of the image.
VIEWS = ("front", "back", "left", "right")

Limb = tuple[Point, Point, Point]


class _Pose(NamedTuple):
    """Joints of a walking figure; the limbs farther from the camera come first."""

    legs: tuple[Limb, Limb]  # hip, knee, ankle
    arms: tuple[Limb, Limb]  # shoulder, elbow, wrist
    facing: int  # -1: to the left of the image, 1: to the right, 0: front or back


def draw_person(canvas: Canvas, person: Person, *, view: str, phase: float = 0.0) -> None:
    """Draws a walking person, 100 units high, with the top of the head at the canvas's (0, 0).

    Args:
        canvas: Where to draw.
        person: Whom to draw.
        view: The side that the camera sees: one of `VIEWS`.
        phase: Where in the walking cycle the person is, in radians.

    Raises:
        ValueError: If the view is unknown.
    """
    if view not in VIEWS:
        raise ValueError(f"view must be one of {VIEWS}, got {view!r}")
    pose = _profile_pose(view, phase) if view in ("left", "right") else _frontal_pose(person, phase)
    far, near = pose.arms
    if pose.facing:
        _draw_arm(canvas, person, far, percent=75)
    _draw_legs(canvas, person, pose)
    if pose.facing and person.bag == "backpack":
        _draw_backpack(canvas, person, view, pose.facing)
    _draw_torso(canvas, person, view, pose.facing)
    _draw_head(canvas, person, view, pose.facing)
    if not pose.facing:
        _draw_arm(canvas, person, far, percent=92)
        if person.bag == "backpack":
            _draw_backpack(canvas, person, view, 0)
    _draw_arm(canvas, person, near, percent=92)
    if person.bag == "handbag":
        _draw_handbag(canvas, person, view)


def _swing(start: Point, angle: float, length: float) -> Point:
    """Returns the far end of a bone that hangs from ``start``, swung ``angle`` radians to +x."""
    return start[0] + length * math.sin(angle), start[1] + length * math.cos(angle)


def _profile_pose(view: str, phase: float) -> _Pose:
    facing = 1 if view == "right" else -1
    stride = math.sin(phase)
    legs, arms = [], []
    for swing in (-stride, stride):
        thigh = 0.4 * swing
        # Only the leg that is behind bends at the knee.
        shin = thigh - 0.15 - 0.4 * max(0.0, -swing)
        knee = _swing((0, 51), facing * thigh, 22)
        legs.append(((0.0, 51.0), knee, _swing(knee, facing * shin, 23)))
        elbow = _swing((-0.5 * facing, 20), facing * -0.55 * swing, 16)
        arms.append(
            ((-0.5 * facing, 20.0), elbow, _swing(elbow, facing * (0.35 - 0.55 * swing), 15))
        )
    return _Pose((legs[0], legs[1]), (arms[0], arms[1]), facing)


def _frontal_pose(person: Person, phase: float) -> _Pose:
    stride = math.sin(phase)
    legs, arms = [], []
    for side, swing in ((-1, -stride), (1, stride)):
        # Seen from the front a step shows as one foot higher than the other.
        lift = 2.5 * max(0.0, swing)
        hip, knee = 4.6 * person.build * side, (5.0 * person.build + 0.4) * side
        legs.append(((hip, 51.0), (knee, 73 - lift), (knee - 0.3 * side, 95 - 1.6 * lift)))
        shoulder = 10.6 * person.build * side
        elbow = (shoulder + (1.8 + 0.7 * swing) * side, 34.5)
        wrist = (elbow[0] - 0.6 * swing * side, 49 - 3 * max(0.0, -swing))
        arms.append(((shoulder, 19.5), elbow, wrist))
    return _Pose((legs[0], legs[1]), (arms[0], arms[1]), 0)


def _draw_legs(canvas: Canvas, person: Person, pose: _Pose) -> None:
    cloth, skin, build = person.lower.paint, Paint(person.skin), person.build
    for (hip, knee, ankle), percent in zip(
        pose.legs, (82 if pose.facing else 96, 100), strict=True
    ):
        leg = cloth if person.lower.kind == "trousers" else skin
        leg = leg._replace(colour=shade(leg.colour, percent))
        shoe = Paint(shade(person.shoes, percent))
        canvas.limb(knee, ankle, (6.6 * build, 5.2 * build), leg)
        canvas.limb(hip, knee, (9.4 * build, 7.0 * build), leg)
        if person.lower.kind == "shorts":
            end = (hip[0] + (knee[0] - hip[0]) * 0.8, hip[1] + (knee[1] - hip[1]) * 0.8)
            trouser = cloth._replace(colour=shade(cloth.colour, percent))
            canvas.limb(hip, end, (10.0 * build, 9.0 * build), trouser)
        toe = ankle[0] + 2.2 * pose.facing
        canvas.ellipse((toe, ankle[1] + 3.0), (4.6 if pose.facing else 3.2, 2.4), shoe)
    if person.lower.kind == "skirt":
        top, bottom = (6.0, 8.5) if pose.facing else (8.0 * build, 12.5 * build)
        canvas.polygon([(-top, 42), (top, 42), (bottom, 69), (-bottom, 69)], cloth)
    else:
        half = 5.4 * build if pose.facing else 9.0 * build
        canvas.rectangle(-half, 44, half, 54, cloth)


def _draw_torso(canvas: Canvas, person: Person, view: str, facing: int) -> None:
    upper, build = person.upper, person.build
    canvas.rectangle(-2.6, 12, 2.6, 18, Paint(shade(person.skin, 88)))
    if facing:
        half = 6.6 * build
        canvas.polygon(
            [
                (-half, 20),
                (-3, 15.5),
                (3, 15.5),
                (half, 20),
                (half * 0.95, upper.hem),
                (-half * 0.95, upper.hem),
            ],
            upper.paint,
        )
        if upper.kind == "jacket":
            edge = facing * half
            canvas.rectangle(
                edge, 19, edge - facing * upper.opening * 0.6, upper.hem, Paint(upper.inner)
            )
        return
    chest, hip = 11.8 * build, 9.8 * build
    canvas.polygon(
        [
            (-chest, 20),
            (-chest * 0.6, 15.5),
            (chest * 0.6, 15.5),
            (chest, 20),
            (hip, upper.hem),
            (-hip, upper.hem),
        ],
        upper.paint,
    )
    if view == "front" and upper.kind == "jacket":
        gap = upper.opening
        canvas.polygon(
            [(-gap * 0.7, 15.5), (gap * 0.7, 15.5), (gap, upper.hem), (-gap, upper.hem)],
            Paint(upper.inner),
        )
    elif view == "front" and upper.logo:
        canvas.rectangle(-5, 24, 5, 32, Paint(upper.logo))


def _draw_arm(canvas: Canvas, person: Person, arm: Limb, *, percent: int) -> None:
    shoulder, elbow, wrist = arm
    skin, paint = Paint(shade(person.skin, percent)), person.upper.paint
    # Patterned sleeves stay as bright as the torso: their second colour is not shaded either.
    sleeve = paint._replace(colour=shade(paint.colour, percent))
    canvas.ellipse((wrist[0], wrist[1] + 1.6), (2.2, 2.8), skin)
    canvas.limb(elbow, wrist, (4.6, 3.6), skin if person.upper.kind == "shirt" else sleeve)
    canvas.limb(shoulder, elbow, (6.0, 5.0), sleeve)


def _draw_head(canvas: Canvas, person: Person, view: str, facing: int) -> None:
    hair, skin, style = Paint(person.hair), Paint(person.skin), person.hair_style
    covering = skin if style == "bald" else hair
    if style == "long" and facing:
        strands = [(-6.2 * facing, 7), (0, 6), (-0.5 * facing, 22), (-6.5 * facing, 24)]
        canvas.polygon(strands, hair)
    elif style == "long" and view == "back":
        canvas.rectangle(-6.2, 7, 6.2, 23, hair)
    elif style == "long":
        canvas.rectangle(-6.2, 7, -3.6, 21, hair)
        canvas.rectangle(3.6, 7, 6.2, 21, hair)
    if style == "bun":
        canvas.ellipse((-facing * 6.0, 3.0) if facing else (0, 0.5), (3.0, 3.0), hair)
    canvas.ellipse((-facing * 0.4, 6.8), (5.8, 6.8), covering)
    if view == "back":
        if style == "cap":
            canvas.rectangle(-4.4, 8, 4.4, 12.5, skin)
        elif style in ("short", "bun"):
            canvas.rectangle(-2.8, 11.5, 2.8, 15, skin)
        return
    canvas.ellipse((facing * 2.2, 8.8), (4.2 if facing else 4.6, 5.4), skin)
    if facing:
        canvas.ellipse((facing * 5.9, 9.2), (1.2, 1.0), skin)
    eyes = (facing * 4.4,) if facing else (-2.0, 2.0)
    for eye in eyes:
        canvas.ellipse((eye, 8.0), (0.6, 0.6), Paint((40, 32, 30)))
    if style == "cap":
        canvas.ellipse((facing * 0.3, 4.2), (6.0, 4.2), hair)
        canvas.rectangle(facing * 2 - 5, 5, facing * 6 + 5, 7, Paint(shade(person.hair, 80)))


def _draw_backpack(canvas: Canvas, person: Person, view: str, facing: int) -> None:
    bag, dark = Paint(person.bag_colour), Paint(shade(person.bag_colour, 70))
    if view == "front":
        for side in (-1, 1):
            x = 6.6 * person.build * side
            canvas.rectangle(x - 1.2, 16, x + 1.2, 36, bag)
    elif view == "back":
        canvas.polygon([(-8, 21), (-5.5, 18), (5.5, 18), (8, 21), (8.6, 44), (-8.6, 44)], bag)
        canvas.rectangle(-6, 32, 6, 41, dark)
    else:
        back = -facing * 5.5 * person.build
        canvas.polygon(
            [(back, 18), (back - facing * 6, 21), (back - facing * 7.5, 43), (back, 44)], bag
        )
        canvas.rectangle(back - facing * 5, 31, back - facing * 7.6, 41, dark)


def _draw_handbag(canvas: Canvas, person: Person, view: str) -> None:
    bag, dark = Paint(person.bag_colour), Paint(shade(person.bag_colour, 70))
    if view in ("left", "right"):
        if view == person.bag_side:
            canvas.limb((0, 18), (-1, 46), (1.4, 1.4), dark)
            canvas.rectangle(-7.5, 45, 6, 58, bag)
            canvas.rectangle(-7.5, 45, 6, 48, dark)
        return
    # Facing us, the person's left is to the right of the image.
    side = (1 if person.bag_side == "left" else -1) * (1 if view == "front" else -1)
    x = 12.0 * person.build * side
    canvas.limb((9.0 * person.build * side, 17), (x, 46), (1.4, 1.4), dark)
    canvas.rectangle(x - 1.5 * side, 45, x + 5.0 * side, 59, bag)
    canvas.rectangle(x - 1.5 * side, 45, x + 5.0 * side, 48, dark)
