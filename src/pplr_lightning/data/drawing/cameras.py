"""Surveillance cameras: what each does to colour, light and sharpness, and where it hangs."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pplr_lightning.data.drawing.bodies import VIEWS
from pplr_lightning.data.drawing.people import between, pick, stream

SCENES = ("street", "wall", "tiles", "grass")

_CAMERA = 4  # first word of the key of a camera's stream, as in people.py


@dataclass(frozen=True, eq=False)
class Camera:
    """One camera and its surroundings.

    Attributes:
        shift: How much this camera is its own, 0 (like all others) to 1.
        tables: (3, 256) uint8: what becomes of each level of red, green and blue.
        blur: Number of times the image is smoothed.
        noise: Largest deviation of one pixel, in levels.
        view: The side from which it sees most people: one of `VIEWS`.
        scene: The background it mostly has: one of `SCENES`.
        tint: What its surroundings add to red, green and blue, in levels.
        stretch: Breadth of a person against the true one; a camera high up sees broader people.
    """

    shift: float
    tables: np.ndarray
    blur: int
    noise: int
    view: str
    scene: str
    tint: tuple[int, int, int]
    stretch: float

    def pick_view(self, rng: np.random.Generator) -> str:
        """Draws the side from which it sees somebody: its usual one or any."""
        return self.view if between(rng, 0, 1) < 0.8 * self.shift else pick(rng, VIEWS)

    def pick_scene(self, rng: np.random.Generator) -> str:
        """Draws the background of one image: its usual one or any."""
        return self.scene if between(rng, 0, 1) < 2 * self.shift else pick(rng, SCENES)

    def expose(self, drawing: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Turns a drawing of twice the size into the photograph this camera takes of it.

        Args:
            drawing: (3, 2 H, 2 W) uint8.
            rng: Source of the light's and the pixels' noise.

        Returns:
            (H, W, 3) uint8.
        """
        photo = drawing.astype(np.uint16)
        photo = photo[:, ::2] + photo[:, 1::2]
        photo = (photo[..., ::2] + photo[..., 1::2] + 2) // 4
        for _ in range(self.blur):
            photo = _smooth(photo)
        photo = np.minimum(photo * _light(rng, photo.shape[1], photo.shape[2]) // 100, 255)
        exposed = np.stack([table[plane] for table, plane in zip(self.tables, photo, strict=True)])
        # Two uniform draws make the noise peaked in the middle, as sensor noise is.
        noise = rng.integers(-self.noise, self.noise + 1, (2, *photo.shape), dtype=np.int8)
        noisy = exposed.astype(np.int16) + (noise[0] + noise[1]) // 2
        return np.clip(noisy, 0, 255).astype(np.uint8).transpose(1, 2, 0).copy()


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
    return Camera(
        shift=shift,
        tables=np.array(tables, dtype=np.uint8),
        blur=round(between(rng, 0, 3) * shift),
        noise=4 + round(between(rng, 0, 18) * shift),
        # Neighbouring numbers differ, so that a handful of cameras has all views and scenes.
        view=VIEWS[camera_id % len(VIEWS)],
        scene=SCENES[camera_id % len(SCENES)],
        tint=(round(deviate(50)), round(deviate(50)), round(deviate(50))),
        stretch=1 + deviate(0.15),
    )


def _smooth(image: np.ndarray) -> np.ndarray:
    """Smooths (3, H, W) with the weights 1 2 1 along both axes."""
    rows = np.concatenate([image[:, :1], image, image[:, -1:]], axis=1)
    image = (rows[:, :-2] + 2 * rows[:, 1:-1] + rows[:, 2:] + 2) // 4
    columns = np.concatenate([image[..., :1], image, image[..., -1:]], axis=2)
    return (columns[..., :-2] + 2 * columns[..., 1:-1] + columns[..., 2:] + 2) // 4


def _light(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """Draws how bright each pixel is lit, in percent: from one side, and in patches."""
    left, right = (int(rng.integers(82, 116)) for _ in range(2))
    slope = left + (right - left) * np.arange(width) // width
    # A dozen patches along the height, whatever the resolution.
    size = max(1, height // 12)
    patches = rng.integers(-4, 5, (-(-height // size), -(-width // size)))
    patches = patches.repeat(size, axis=0).repeat(size, axis=1)[:height, :width]
    return (slope + patches).astype(np.uint16)
