"""Surveillance cameras: what each does to colour, light and sharpness, and where it hangs."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from pplr_lightning.data.drawing.exposure import (
    compress,
    halve,
    noise,
    smear,
    smooth,
    uneven_light,
)
from pplr_lightning.data.drawing.people import between, chance, stream
from pplr_lightning.data.drawing.places import PLACES, Place, make_place
from pplr_lightning.data.drawing.solids import Light

_CAMERA = 4  # first word of the key of a camera's stream, as in people.py


@dataclass(frozen=True, eq=False)
class Camera:
    """One camera and its surroundings.

    Attributes:
        shift: How much this camera is its own, 0 (like all others) to 1.
        tables: (3, 256) uint8: what becomes of each level of red, green and blue.
        blur: Number of times the image is smoothed.
        noise: Largest deviation of one pixel, in levels.
        quality: Of its JPEG compression, 1 to 100.
        heading: The way in which most people walk there, 0 to 359 degrees; 0 is towards it.
        place: What it looks at.
        others: What it looks at now and then, as all cameras do.
        tint: What its surroundings add to red, green and blue, in levels.
        pitch: How steeply it looks down, in degrees.
        distance: From whom it sees, in hundredths of a person's height.
        light: The sun and the sky over it.
    """

    shift: float
    tables: np.ndarray
    blur: int
    noise: int
    quality: int
    heading: int
    place: Place
    others: tuple[Place, ...]
    tint: tuple[int, int, int]
    pitch: int
    distance: float
    light: Light

    def pick_heading(self, rng: np.random.Generator) -> int:
        """Draws the way in which somebody walks, in degrees: the usual one or any."""
        usual = chance(rng, 0.8 * self.shift)
        return (self.heading if usual else 45 * int(rng.integers(8))) + int(rng.integers(-15, 16))

    def pick_place(self, rng: np.random.Generator) -> Place:
        """Draws where somebody walks: its own place or, the less the shift the likelier, any."""
        own, any_other = chance(rng, 3 * self.shift), int(rng.integers(len(self.others)))
        return self.place if own else self.others[any_other]

    def expose(self, drawing: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Turns a drawing of twice the size into the photograph this camera takes of it.

        Args:
            drawing: (3, 2 H, 2 W) uint8.
            rng: Source of the light's and the pixels' noise.

        Returns:
            (H, W, 3) uint8.
        """
        photo = halve(drawing)
        for _ in range(self.blur):
            photo = smooth(photo)
        if chance(rng, 0.1 + 0.3 * self.shift):  # who walks fast is blurred
            photo = smear(photo)
        photo = np.minimum(photo * uneven_light(rng, *photo.shape[1:]) // 100, 255)
        exposed = np.stack([table[plane] for table, plane in zip(self.tables, photo, strict=True)])
        noisy = np.clip(exposed + noise(rng, self.noise, photo.shape), 0, 255)
        return compress(noisy, self.quality).astype(np.uint8).transpose(1, 2, 0).copy()


def make_camera(seed: int, camera_id: int, *, shift: float) -> Camera:
    """Makes up the camera of a number.

    Args:
        seed: Seed of all cameras; not negative.
        camera_id: Which camera; not negative.
        shift: 0 makes all cameras alike, 1 makes them very different.
    """
    rng = stream(seed, _CAMERA, camera_id)

    def deviate(limit: float) -> float:
        return shift * between(rng, -limit, limit)

    gamma = 2.0 ** deviate(0.8)
    contrast, brightness = 1 + deviate(0.4), deviate(45)
    tables = []
    for gain in (1 + deviate(0.3), 1 + deviate(0.2), 1 + deviate(0.3)):
        # Python's own floats: numpy's powers may round differently on another processor.
        levels = (255 * (level / 255) ** gamma * gain for level in range(256))
        levels = (128 + (level - 128) * contrast + brightness for level in levels)
        tables.append([min(255, max(0, round(level))) for level in levels])
    sun = deviate(1.0)
    return Camera(
        shift=shift,
        tables=np.array(tables, dtype=np.uint8),
        blur=round(between(rng, 0, 3) * shift),
        noise=4 + round(between(rng, 0, 18) * shift),
        quality=88 - round(between(rng, 0, 50) * shift),
        # Neighbouring numbers differ, so that a handful of cameras has all headings and places.
        heading=90 * (camera_id % 4),
        place=make_place(seed, camera_id % PLACES),
        others=tuple(make_place(seed, number) for number in range(PLACES)),
        tint=(round(deviate(50)), round(deviate(50)), round(deviate(50))),
        pitch=16 + round(deviate(14)),
        distance=600 * (1 + deviate(0.4)),
        light=_light(-0.5 + sun, ambient=58 - deviate(16), direct=70 + deviate(40)),
    )


def _light(sideways: float, *, ambient: float, direct: float) -> Light:
    """Returns a light whose sun stands behind the camera, more or less to one side."""
    x, y, z = sideways, -0.8, -0.5
    length = math.sqrt(x * x + y * y + z * z)
    return Light((x / length, y / length, z / length), ambient, direct)
