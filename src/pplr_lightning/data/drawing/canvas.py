"""An image under the brush: colours, how brightly each pixel is lit, and flat shapes.

Every machine must draw the same pixels. Pillow's own shapes have changed between versions; here a
coordinate is rounded to a pixel once, and what decides a pixel afterwards is integers, or floats
that are added, multiplied, divided or rooted one operation at a time: IEEE 754 says how each is
rounded. No sum over an array of floats and no matrix product: their order is the processor's.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache
from typing import NamedTuple

import numpy as np

Colour = tuple[int, int, int]
Point = tuple[float, float]


class Paint(NamedTuple):
    """Describes how a shape is filled.

    Attributes:
        colour: RGB, each 0 to 255.
        pattern: ``"plain"``, ``"stripes"`` (across), ``"bars"`` (downwards) or ``"checks"``.
        second: The pattern's other colour.
        period: Width of one stripe, in the canvas's units.
    """

    colour: Colour
    pattern: str = "plain"
    second: Colour = (0, 0, 0)
    period: float = 4.0


def shade(colour: Colour, percent: int) -> Colour:
    """Darkens (below 100) or lightens (above 100) an RGB colour, cut off at 255."""
    red, green, blue = (min(255, channel * percent // 100) for channel in colour)
    return red, green, blue


def pack(colour: Colour) -> int:
    """Puts a colour into one number, which fills many times faster than three do."""
    return colour[0] | colour[1] << 8 | colour[2] << 16


@cache
def sine(degrees: int) -> float:
    """Returns the sine of whole degrees, without the last digits, in which machines differ."""
    return round(math.sin(math.radians(degrees)), 9)


def cosine(degrees: int) -> float:
    """Returns the cosine of whole degrees, as `sine`."""
    return sine(90 - degrees)


class Canvas:
    """Draws into an image in the units of one's own coordinate frame.

    Args:
        pixels: (H, W) uint32 image, drawn into in place; see `blank` and `planes`.
        light: (H, W) uint16: how brightly each pixel is lit, in percent; shapes are lit by 100.
        origin: Pixel (x, y) of the frame's point (0, 0).
        scale: Pixels per unit along x and y.
    """

    def __init__(
        self,
        pixels: np.ndarray,
        light: np.ndarray,
        *,
        origin: Point = (0.0, 0.0),
        scale: Point = (1.0, 1.0),
    ) -> None:
        self.pixels = pixels
        self.light = light
        self.origin = origin
        self.scale = scale

    @classmethod
    def blank(cls, height: int, width: int) -> Canvas:
        """Returns a black canvas of that many pixels, its frame in pixels."""
        return cls(
            np.zeros((height, width), dtype=np.uint32),
            np.full((height, width), 100, dtype=np.uint16),
        )

    def frame(self, origin: Point, scale: Point = (1.0, 1.0)) -> Canvas:
        """Returns a canvas on the same pixels with a frame of its own.

        Args:
            origin: Where the new frame's (0, 0) lies, in this canvas's units.
            scale: This canvas's units per unit of the new frame, along x and y.
        """
        x = self.origin[0] + origin[0] * self.scale[0]
        y = self.origin[1] + origin[1] * self.scale[1]
        scale = (self.scale[0] * scale[0], self.scale[1] * scale[1])
        return Canvas(self.pixels, self.light, origin=(x, y), scale=scale)

    def planes(self) -> np.ndarray:
        """Returns the whole image, lit, as (3, H, W) uint8: its red, green and blue."""
        colours = np.stack([(self.pixels >> shift & 255) for shift in (0, 8, 16)])
        return np.minimum(colours * self.light // 100, 255).astype(np.uint8)

    def rectangle(self, left: float, top: float, right: float, bottom: float, paint: Paint) -> None:
        """Fills an upright rectangle; left and right may come in either order."""
        (x0, y0), (x1, y1) = self._pixel((left, top)), self._pixel((right, bottom))
        box = self.clip(min(x0, x1), y0, max(x0, x1), y1)
        self._fill(box, np.ones((box[3] - box[1], box[2] - box[0]), bool), paint)

    def polygon(self, points: Sequence[Point], paint: Paint) -> None:
        """Fills a convex polygon, its corners in order (either way round)."""
        corners = [self._pixel(point) for point in points]
        following = corners[1:] + corners[:1]
        edges = list(zip(corners, following, strict=True))
        turn = 1 if sum(ax * by - bx * ay for (ax, ay), (bx, by) in edges) >= 0 else -1
        columns, rows = zip(*corners, strict=True)
        box = self.clip(min(columns), min(rows), max(columns), max(rows))
        xs, ys = np.arange(box[0], box[2]), np.arange(box[1], box[3])[:, None]
        inside = np.ones((ys.size, xs.size), dtype=bool)
        for (ax, ay), (bx, by) in edges:
            # A point is inside when it lies on the same side of every edge.
            inside &= (ys - ay) * (turn * (bx - ax)) >= (xs - ax) * (turn * (by - ay))
        self._fill(box, inside, paint)

    def ellipse(self, centre: Point, radii: Point, paint: Paint) -> None:
        """Fills an upright ellipse of the given (x, y) radii."""
        x, y = self._pixel(centre)
        across = max(1, round(radii[0] * self.scale[0]))
        down = max(1, round(radii[1] * self.scale[1]))
        box = self.clip(x - across, y - down, x + across, y + down)
        xs, ys = np.arange(box[0], box[2]), np.arange(box[1], box[3])[:, None]
        inside = ((xs - x) * down) ** 2 + ((ys - y) * across) ** 2 <= (across * down) ** 2
        self._fill(box, inside, paint)

    def clip(self, left: int, top: int, right: int, bottom: int) -> tuple[int, int, int, int]:
        """Cuts a box of pixels, both ends included, to the image; the result excludes its ends."""
        height, width = self.pixels.shape
        left, top = min(max(left, 0), width), min(max(top, 0), height)
        # An end before its start is an empty box.
        return left, top, max(left, min(right + 1, width)), max(top, min(bottom + 1, height))

    def _pixel(self, point: Point) -> tuple[int, int]:
        x = round(self.origin[0] + point[0] * self.scale[0])
        return x, round(self.origin[1] + point[1] * self.scale[1])

    def _fill(self, box: tuple[int, int, int, int], inside: np.ndarray, paint: Paint) -> None:
        left, top, right, bottom = box
        region = self.pixels[top:bottom, left:right]
        region[inside] = pack(paint.colour)
        self.light[top:bottom, left:right][inside] = 100
        if paint.pattern == "plain":
            return
        # Patterns hang on the frame's origin, so that they move with what they are painted on.
        wide, high = (max(1, round(paint.period * scale)) for scale in self.scale)
        bars = (np.arange(left, right) - round(self.origin[0])) // wide % 2 == 1
        stripes = (np.arange(top, bottom) - round(self.origin[1]))[:, None] // high % 2 == 1
        second = {"stripes": stripes, "bars": bars, "checks": stripes ^ bars}[paint.pattern]
        region[inside & second] = pack(paint.second)
