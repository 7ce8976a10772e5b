"""What a cheap camera makes of a scene: blur, uneven light, noise, JPEG; all in integers."""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np

# Tables K.1 and K.2 of the JPEG standard (ITU-T T.81), for a quality of 50.
_LUMINANCE = (
    (16, 11, 10, 16, 24, 40, 51, 61),
    (12, 12, 14, 19, 26, 58, 60, 55),
    (14, 13, 16, 24, 40, 57, 69, 56),
    (14, 17, 22, 29, 51, 87, 80, 62),
    (18, 22, 37, 56, 68, 109, 103, 77),
    (24, 35, 55, 64, 81, 104, 113, 92),
    (49, 64, 78, 87, 103, 121, 120, 101),
    (72, 92, 95, 98, 112, 100, 103, 99),
)
_CHROMINANCE = (
    (17, 18, 24, 47, 99, 99, 99, 99),
    (18, 21, 26, 66, 99, 99, 99, 99),
    (24, 26, 56, 99, 99, 99, 99, 99),
    (47, 66, 99, 99, 99, 99, 99, 99),
    *((99,) * 8,) * 4,
)


def halve(image: np.ndarray) -> np.ndarray:
    """Averages four pixels to one: (C, 2 H, 2 W) of any integers to (C, H, W) uint16."""
    image = image.astype(np.uint16)
    image = image[:, ::2] + image[:, 1::2]
    return (image[..., ::2] + image[..., 1::2] + 2) // 4


def smooth(image: np.ndarray) -> np.ndarray:
    """Smooths (C, H, W) of integers with the weights 1 2 1 along both axes."""
    rows = np.concatenate([image[:, :1], image, image[:, -1:]], axis=1)
    image = (rows[:, :-2] + 2 * rows[:, 1:-1] + rows[:, 2:] + 2) // 4
    return smear(image)


def smear(image: np.ndarray) -> np.ndarray:
    """Smooths (C, H, W) of integers with the weights 1 2 1 from left to right."""
    columns = np.concatenate([image[..., :1], image, image[..., -1:]], axis=2)
    return (columns[..., :-2] + 2 * columns[..., 1:-1] + columns[..., 2:] + 2) // 4


def uneven_light(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """Draws how bright each pixel is, in percent: it slopes from side to side and from the top.

    Returns:
        (height, width) uint16.
    """
    left, right = (int(rng.integers(86, 113)) for _ in range(2))
    drop = int(rng.integers(-6, 7))
    across = left + (right - left) * np.arange(width) // width
    down = drop - 2 * drop * np.arange(height) // height
    return (across + down[:, None]).astype(np.uint16)


def noise(rng: np.random.Generator, limit: int, shape: tuple[int, ...]) -> np.ndarray:
    """Draws int16 of -limit to limit, peaked in the middle, as a sensor's noise is."""
    drawn = rng.integers(-limit, limit + 1, (2, *shape), dtype=np.int8)
    return (drawn[0].astype(np.int16) + drawn[1]) // 2


def compress(image: np.ndarray, quality: int) -> np.ndarray:
    """Returns what JPEG leaves of an image, colour at half the size; in integers, unlike a library.

    Args:
        image: (3, H, W) integers, 0 to 255: red, green, blue.
        quality: As libjpeg counts it, 1 to 100.

    Returns:
        (3, H, W) int32, 0 to 255.
    """
    height, width = image.shape[1:]
    red, green, blue = np.pad(image, ((0, 0), (0, -height % 16), (0, -width % 16)), "edge").astype(
        np.int32
    )
    bright = (77 * red + 150 * green + 29 * blue + 128) >> 8
    colour = np.stack([blue - bright, red - bright])
    colour = (colour[:, ::2, ::2] + colour[:, 1::2, 1::2]) >> 1
    bright = _quantise(bright[None] - 128, quality, 0)[0] + 128
    blue, red = _quantise(colour // 2, quality, 1).repeat(2, axis=1).repeat(2, axis=2) * 2
    green = bright - ((29 * blue + 77 * red) // 150)
    decoded = np.stack([bright + red, green, bright + blue])
    return np.clip(decoded[:, :height, :width], 0, 255)


def _quantise(planes: np.ndarray, quality: int, kind: int) -> np.ndarray:
    """Rounds the frequencies of all 8 x 8 blocks of (C, H, W) int32, -128 to 127."""
    count, height, width = planes.shape
    basis, table = _basis(), _table(quality, kind)
    blocks = planes.reshape(count, height // 8, 8, width // 8, 8)
    blocks = blocks.transpose(0, 1, 3, 2, 4).reshape(-1, 8, 8)
    # The basis is scaled by 2**9, so that no sum of 64 products leaves 32 bits.
    waves = (basis @ blocks @ basis.T + (1 << 17)) >> 18
    waves = (waves + table // 2) // table * table
    blocks = (basis.T @ waves @ basis + (1 << 17)) >> 18
    blocks = blocks.reshape(count, height // 8, width // 8, 8, 8)
    return blocks.transpose(0, 1, 3, 2, 4).reshape(count, height, width)


@lru_cache(maxsize=1)
def _basis() -> np.ndarray:
    """Returns the cosines of the discrete cosine transform, (8, 8) int32, times 2**9."""
    rows = [
        [
            math.sqrt((2 if wave else 1) / 8) * math.cos(math.pi * wave * (2 * place + 1) / 16)
            for place in range(8)
        ]
        for wave in range(8)
    ]
    return np.array([[round(512 * value) for value in row] for row in rows], dtype=np.int32)


@lru_cache(maxsize=64)
def _table(quality: int, kind: int) -> np.ndarray:
    """Returns the steps to round to at a quality, (8, 8) int32; kind 1 is for colour."""
    percent = 5000 // quality if quality < 50 else 200 - 2 * quality
    table = np.array((_LUMINANCE, _CHROMINANCE)[kind], dtype=np.int32)
    return np.clip((table * percent + 50) // 100, 1, 255)
