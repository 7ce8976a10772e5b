"""Boxes that a tracker has followed."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

UNKNOWN = -1  # confidence or class that a file does not say


class Row(NamedTuple):
    """A box as a reader finds it.

    Attributes:
        where: What a message calls it.
        frame: Number of the frame.
        track: What the tracker took for one person.
        box: Left, top, width and height in pixels, of which the first is 0.
        confidence: Of the detector, -1 for none.
        kind: Number of its class, -1 for none.
        person: Number of the class of persons.
    """

    where: str
    frame: float
    track: float
    box: tuple[float, ...]
    confidence: float = UNKNOWN
    kind: float = UNKNOWN
    person: float = UNKNOWN


@dataclass(frozen=True)
class Boxes:
    """M boxes, by frame and then as in their file.

    Attributes:
        frame: Numbers of frames, (M,) int64.
        track: What the tracker took for one person, (M,) int64.
        box: Left, top, width and height in pixels, of which the first is 0, (M, 4) float64.
    """

    frame: NDArray[np.int64]
    track: NDArray[np.int64]
    box: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.frame)

    def at(self, rows: NDArray[Any]) -> Boxes:
        """Picks boxes by number or mask."""
        return Boxes(*(getattr(self, field.name)[rows] for field in fields(self)))
