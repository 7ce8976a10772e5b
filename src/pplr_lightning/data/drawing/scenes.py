"""Draws one person crop: place, person, shadow, what stands in front, seen by a camera."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from pplr_lightning.data.drawing.bodies import Pose, cast_shadow, draw_person
from pplr_lightning.data.drawing.cameras import Camera
from pplr_lightning.data.drawing.canvas import Canvas, cosine, sine
from pplr_lightning.data.drawing.exposure import smooth
from pplr_lightning.data.drawing.people import CLOTH, Person, between, chance, make_person, pick
from pplr_lightning.data.drawing.places import Place, Thing, draw_place, draw_thing
from pplr_lightning.data.drawing.solids import Eye, Light

OCCLUDERS = ("pole", "car", "bin", "bench", "bush", "person")


class Walk(NamedTuple):
    """One pass of somebody under a camera.

    Attributes:
        place: Where.
        start: The point (x, z) of the place where it begins.
        pose: How they walk there.
    """

    place: Place
    start: tuple[float, float]
    pose: Pose


def start_walk(camera: Camera, rng: np.random.Generator) -> Walk:
    """Draws how and where somebody passes under a camera."""
    place = camera.pick_place(rng)
    # Now and then an arm is held up: a telephone, a cup.
    bends = tuple(
        int(rng.integers(90, 131)) if chance(rng, 0.12) else int(rng.integers(8, 36))
        for _ in range(2)
    )
    stride = int(rng.integers(16, 31)) if chance(rng, 0.85) else int(rng.integers(0, 8))
    pose = Pose(camera.pick_heading(rng), int(rng.integers(360)), stride, (bends[0], bends[1]))
    start = (between(rng, -300, 300), between(rng, -60, min(120.0, place.distance - 80)))
    return Walk(place, start, pose)


def draw_crop(
    person: Person | None,
    camera: Camera,
    rng: np.random.Generator,
    *,
    walk: Walk,
    step: int = 0,
    image_size: tuple[int, int] = (128, 64),
    occlusion: float = 0.0,
    badly_cropped: bool = False,
) -> np.ndarray:
    """Draws what a detector cuts out of a camera's picture.

    Args:
        person: Whom the crop shows; None for background only.
        camera: The camera that sees them.
        rng: Source of all that varies between two images of one walk.
        walk: Where and how they walk.
        step: The how-manieth image of the walk, from 0.
        image_size: (height, width) in pixels.
        occlusion: Probability that something hides part of the person, 0 to 1.
        badly_cropped: Whether the crop misses much of the person.

    Returns:
        (height, width, 3) uint8.
    """
    height, width = image_size
    # Drawn at twice the size: averaging four pixels smooths the edges.
    canvas = Canvas.blank(2 * height, 2 * width)
    pose = walk.pose._replace(
        yaw=walk.pose.yaw + int(rng.integers(-10, 11)),
        phase=walk.pose.phase + 100 * step + int(rng.integers(-30, 31)),
    )
    gone = 22.0 * step if walk.pose.stride > 8 else 3.0 * step
    x = walk.start[0] - gone * sine(walk.pose.yaw)
    z = max(-120.0, min(walk.place.distance - 60, walk.start[1] - gone * cosine(walk.pose.yaw)))
    eye = _look(canvas, camera, rng, badly_cropped=badly_cropped)
    around = eye._replace(place=(-x, -z))
    draw_place(canvas, walk.place, eye=around, light=camera.light, tint=camera.tint)
    for thing in walk.place.things:
        if thing.z > z + 30:
            draw_thing(canvas, thing, eye=around, rng=rng)
    folds = rng.integers(-100, 101, (1, 64, 64)).astype(np.int32)
    folds = (smooth(folds)[0] * 2).clip(-100, 100).astype(np.int8)
    light = camera.light
    if walk.place.in_shade(x, z):
        light = light._replace(ambient=light.ambient + 14, direct=light.direct * 0.2)
    if chance(rng, 0.25):  # somebody behind
        aside = pick(rng, (-1, 1)) * between(rng, 20, 60)
        away = eye._replace(place=(aside, between(rng, 60, 140)))
        _draw_passer_by(canvas, rng, eye=away, light=light, folds=folds)
    if person is not None:
        _draw_shadow(canvas, person, pose, eye=eye, light=light)
        draw_person(canvas, person, pose, eye=eye, light=light, folds=folds)
    if chance(rng, occlusion):
        _draw_occluder(canvas, pick(rng, OCCLUDERS), rng, eye=eye, light=light, folds=folds)
    return camera.expose(canvas.planes(), rng)


def _look(canvas: Canvas, camera: Camera, rng: np.random.Generator, *, badly_cropped: bool) -> Eye:
    """Returns how the crop shows the person, as well as a detector finds them."""
    height, width = canvas.pixels.shape
    pitch = camera.pitch + int(rng.integers(-2, 3))
    distance = camera.distance * between(rng, 0.85, 1.15)
    eye = Eye((0.0, 0.0), 1.0, pitch, distance)
    top, sole = eye.project((0, 0, 0))[1], eye.project((0, 100, 0))[1]
    # A person is about 40 wide for 100 high: narrow crops cut that down.
    size = between(rng, 0.86, 0.97) * min(1.0, width / height / 0.4)
    x, y = width / 2 + between(rng, -0.07, 0.07) * width, between(rng, 0.48, 0.52) * height
    if badly_cropped and chance(rng, 0.5):  # a part of the body, much enlarged
        size *= between(rng, 1.7, 2.6)
        y += between(rng, -0.6, 0.6) * height
    elif badly_cropped:  # a person at the rim
        x += pick(rng, (-1, 1)) * between(rng, 0.4, 0.55) * width
    elif chance(rng, 0.12):  # detectors now and then cut feet off or leave a wide margin
        size *= between(rng, 0.75, 1.25)
        y += max(0.0, between(rng, -0.04, 0.04) + size / 2 - 0.5) * height
    scale = size * height / (sole - top)
    return Eye((x, y - (top + sole) / 2 * scale), scale, pitch, distance)


def _draw_shadow(canvas: Canvas, person: Person, pose: Pose, *, eye: Eye, light: Light) -> None:
    """Darkens the ground: under the feet, and where the sun does not come."""
    shadow = np.zeros(canvas.pixels.shape, dtype=bool)
    cast_shadow(shadow, person, pose, eye=eye, light=light)
    soft = smooth(smooth(shadow[None].astype(np.int32) * 64))[0]
    share = int(100 * light.direct / (light.direct + light.ambient))
    canvas.light[:] = canvas.light * (6400 - soft * share) // 6400
    x, y, _, scale = eye.project((0, 100, 0))
    xs = (np.arange(canvas.pixels.shape[1], dtype=np.float32) - x) / (20 * scale)
    ys = (np.arange(canvas.pixels.shape[0], dtype=np.float32) - y) / (9 * scale)
    near = np.maximum(1 - xs * xs - (ys * ys)[:, None], 0)
    canvas.light[:] = (canvas.light * (1 - near * 0.5)).astype(np.uint16)


def _draw_passer_by(
    canvas: Canvas, rng: np.random.Generator, *, eye: Eye, light: Light, folds: np.ndarray
) -> None:
    person = make_person(0, int(rng.integers(2**31)))
    pose = Pose(int(rng.integers(360)), int(rng.integers(360)))
    _draw_shadow(canvas, person, pose, eye=eye, light=light)
    draw_person(canvas, person, pose, eye=eye, light=light, folds=folds)


def _draw_occluder(
    canvas: Canvas,
    kind: str,
    rng: np.random.Generator,
    *,
    eye: Eye,
    light: Light,
    folds: np.ndarray,
) -> None:
    """Draws something between the camera and the person."""
    if kind == "person":
        side = pick(rng, (-1, 1)) * between(rng, 12, 22)
        nearer = eye._replace(place=(side, -between(rng, 30, 70)))
        _draw_passer_by(canvas, rng, eye=nearer, light=light, folds=folds)
        return
    # Near enough for what is high to leave the head to be seen.
    z = -between(rng, 60, 120)
    x = between(rng, -8, 8) if kind == "pole" else between(rng, -25, 25)
    thing = Thing(kind, x, z, pick(rng, CLOTH), between(rng, 0.8, 1.2))
    draw_thing(canvas, thing, eye=eye, rng=rng)
