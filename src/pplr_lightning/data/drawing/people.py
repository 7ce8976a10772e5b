"""What drawn people look like: clothes, hair, bags; each a pure function of (seed, number)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TypeVar

import numpy as np

from pplr_lightning.data.drawing.canvas import Colour, Paint

T = TypeVar("T")

# Everybody picks from the same wardrobe, so that some people share an upper or a lower garment
# and must be told apart by the rest.
UPPERS, LOWERS = 20, 12

# The first word of a stream's key, which keeps the streams of different things apart.
_PERSON, _UPPER, _LOWER = 1, 2, 3

# Dark and muted colours come several times: most clothes in the street are.
CLOTH: tuple[Colour, ...] = (
    *((32, 32, 36),) * 3,
    *((40, 52, 92),) * 2,
    *((112, 114, 118),) * 2,
    *((228, 228, 224),) * 2,
    (64, 92, 150),
    (150, 180, 214),
    (176, 38, 40),
    (104, 28, 40),
    (44, 108, 62),
    (98, 104, 58),
    (222, 188, 62),
    (196, 174, 134),
    (104, 74, 50),
    (216, 116, 44),
    (226, 148, 168),
    (110, 68, 134),
    (58, 156, 160),
)
SKIN: tuple[Colour, ...] = (
    (240, 208, 184),
    (226, 184, 152),
    (204, 158, 122),
    (166, 118, 84),
    (116, 78, 54),
)
HAIR: tuple[Colour, ...] = (
    (26, 22, 20),
    (52, 36, 26),
    (94, 62, 38),
    (180, 140, 82),
    (142, 70, 40),
    (158, 156, 152),
)


@dataclass(frozen=True)
class Upper:
    """A shirt (short sleeves), a pullover (``"sleeves"``) or an open ``"jacket"``.

    Attributes:
        kind: ``"shirt"``, ``"sleeves"`` or ``"jacket"``.
        paint: The cloth.
        inner: What shows between the two halves of a jacket, from the front only.
        opening: Half the width of that gap, in hundredths of the body height.
        hem: How far down it reaches, 0 (top of the head) to 100 (soles).
        logo: Colour of a print on the chest, None for no print.
    """

    kind: str
    paint: Paint
    inner: Colour
    opening: float
    hem: float
    logo: Colour | None


@dataclass(frozen=True)
class Lower:
    """``"trousers"``, ``"shorts"`` or a ``"skirt"``, and the cloth it is made of."""

    kind: str
    paint: Paint


@dataclass(frozen=True)
class Person:
    """One drawn identity.

    Attributes:
        upper: The upper garment.
        lower: The lower garment.
        shoes: Colour of the shoes.
        skin: Colour of the skin.
        hair: Colour of the hair, or of the cap.
        hair_style: ``"short"``, ``"long"``, ``"bun"``, ``"bald"`` or ``"cap"``.
        bag: ``"none"``, ``"backpack"`` or ``"handbag"``.
        bag_colour: Colour of the bag.
        bag_side: The side a handbag hangs on: ``"left"`` or ``"right"`` of the person.
        build: Breadth against the average, about 0.88 to 1.15.
    """

    upper: Upper
    lower: Lower
    shoes: Colour
    skin: Colour
    hair: Colour
    hair_style: str
    bag: str
    bag_colour: Colour
    bag_side: str
    build: float


def stream(*key: int) -> np.random.Generator:
    """Returns the random stream that belongs to a key of non-negative integers."""
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence(key)))


def pick(rng: np.random.Generator, options: Sequence[T]) -> T:
    """Draws one of the options, all equally likely."""
    return options[int(rng.integers(len(options)))]


def between(rng: np.random.Generator, low: float, high: float) -> float:
    """Draws a number from [low, high)."""
    return low + (high - low) * float(rng.random())


def chance(rng: np.random.Generator, probability: float) -> bool:
    """Draws True with the given probability."""
    return float(rng.random()) < probability


def make_person(seed: int, number: int) -> Person:
    """Makes up the person of a number.

    Args:
        seed: Seed of the wardrobe and of all people; not negative.
        number: Which person; not negative. The same numbers give the same people.
    """
    rng = stream(seed, _PERSON, number)
    style = pick(rng, ("short", "short", "short", "long", "long", "bun", "bald", "cap"))
    return Person(
        upper=_make_upper(seed, int(rng.integers(UPPERS))),
        lower=_make_lower(seed, int(rng.integers(LOWERS))),
        shoes=pick(rng, CLOTH),
        skin=pick(rng, SKIN),
        hair=pick(rng, CLOTH if style == "cap" else HAIR),
        hair_style=style,
        bag=pick(rng, ("none", "none", "backpack", "backpack", "handbag")),
        bag_colour=pick(rng, CLOTH),
        bag_side=pick(rng, ("left", "right")),
        build=between(rng, 0.88, 1.15),
    )


@lru_cache(maxsize=2 * UPPERS)
def _make_upper(seed: int, number: int) -> Upper:
    rng = stream(seed, _UPPER, number)
    kind = pick(rng, ("shirt", "shirt", "sleeves", "jacket", "jacket"))
    pattern = pick(rng, ("plain", "plain", "plain", "stripes", "checks"))
    colour, second = _two_colours(rng)
    paint = Paint(colour, pattern, second, between(rng, 2.5, 4.5))
    logo = second if pattern == "plain" and kind != "jacket" and chance(rng, 0.5) else None
    hem = between(rng, 58, 68) if kind == "jacket" and chance(rng, 0.3) else between(rng, 48, 54)
    inner = second if pattern == "plain" else pick(rng, CLOTH)
    return Upper(kind, paint, inner, between(rng, 2.5, 5.0), hem, logo)


@lru_cache(maxsize=2 * LOWERS)
def _make_lower(seed: int, number: int) -> Lower:
    rng = stream(seed, _LOWER, number)
    kind = pick(rng, ("trousers", "trousers", "trousers", "shorts", "skirt"))
    colour, second = _two_colours(rng)
    patterns = ("plain", "stripes", "checks") if kind == "skirt" else ("plain",)
    return Lower(kind, Paint(colour, pick(rng, patterns), second, 3.5))


def _two_colours(rng: np.random.Generator) -> tuple[Colour, Colour]:
    """Draws two cloth colours far enough apart to be told from each other."""
    first = pick(rng, CLOTH)
    others = [c for c in CLOTH if sum(abs(a - b) for a, b in zip(c, first, strict=True)) > 150]
    return _dye(rng, first), _dye(rng, pick(rng, others))


def _dye(rng: np.random.Generator, colour: Colour) -> Colour:
    """Varies a colour a little, as dyes do."""
    red, green, blue = (min(255, max(0, c + int(rng.integers(-12, 13)))) for c in colour)
    return red, green, blue
