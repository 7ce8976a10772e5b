"""Which of a tracker's boxes are worth a crop, and where it is cut."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pplr_lightning.data.boxes import Boxes
from pplr_lightning.functional.checks import check_count, check_fraction


@dataclass(frozen=True)
class BoxFilter:
    """Which boxes are cut out.

    Attributes:
        every: Only frames whose number is a multiple of it: frames that follow each other show
            the same again. It is one grid for all tracks, so that two people in one frame are seen
            to be two.
        min_width: Fewest pixels.
        min_height: Likewise.
        min_aspect: Least height over width.
        max_aspect: Largest.
        max_overlap: Largest share of a box that another of its frame covers, in [0, 1].
        border: A box that comes as near as this to the frame's edge, in pixels, is left out, for
            the person may be cut off; -1 keeps them.
        padding: Share of width and height that the crop has beyond the box, on each side.

    Raises:
        ValueError: An option is out of range.
    """

    every: int = 10
    min_width: int = 24
    min_height: int = 48
    min_aspect: float = 1.2
    max_aspect: float = 5.0
    max_overlap: float = 0.5
    border: int = 0
    padding: float = 0.0

    def __post_init__(self) -> None:
        check_count("--every", self.every)
        check_count("--min_width", self.min_width)
        check_count("--min_height", self.min_height)
        check_count("--border", self.border, least=-1)
        if not 0 <= self.min_aspect < self.max_aspect < float("inf"):
            raise ValueError(
                f"--min_aspect {self.min_aspect:g} and --max_aspect {self.max_aspect:g}: height "
                "over width from the one to the other"
            )
        check_fraction("--max_overlap", self.max_overlap, "1 keeps all")
        check_fraction("--padding", self.padding, "0.1 adds a tenth on each side")

    def on_grid(self, boxes: Boxes) -> Boxes:
        """Picks those of every n-th frame."""
        return boxes.at(boxes.frame % self.every == 0)

    def select(
        self, boxes: Boxes, sizes: Mapping[int, tuple[int, int]], where: str
    ) -> tuple[Boxes, dict[str, int]]:
        """Picks boxes to cut out.

        Args:
            boxes: Of one video, all that there are in its frames.
            sizes: Width and height of the frames.
            where: What a message calls the boxes.

        Returns:
            The boxes, and how many were left out for each reason, the first that applies.

        Raises:
            ValueError: More than half of the boxes lie outside their frames. Fewer are a tracker's
                guesses of where someone went, and left out.
        """
        shapes = np.array([sizes[frame] for frame in boxes.frame.tolist()]).reshape(-1, 2)
        left_top, size = boxes.box[:, :2], boxes.box[:, 2:]
        right_bottom = left_top + size
        outside = ((right_bottom <= 0) | (left_top >= shapes)).any(axis=1)
        if outside.sum() > len(boxes) / 2:
            row = int(outside.argmax())
            raise ValueError(
                f"{where}: {outside.sum():,} of {len(boxes):,} boxes lie outside their frame, such "
                f"as that of track {boxes.track[row]} at {left_top[row, 0]:g}, "
                f"{left_top[row, 1]:g}, where frame {boxes.frame[row]} is of {shapes[row, 0]} x "
                f"{shapes[row, 1]} pixels: are they of another video?"
            )
        aspect = size[:, 1] / size[:, 0]
        near = (left_top <= self.border) | (right_bottom >= shapes - self.border)
        reasons = {
            "outside the frame": outside,
            "small": (size < [self.min_width, self.min_height]).any(axis=1),
            "of another shape": (aspect < self.min_aspect) | (aspect > self.max_aspect),
            "at the border": near.any(axis=1) & (self.border >= 0),
            "covered": _overlaps(boxes) > self.max_overlap,
        }
        kept, left_out = np.ones(len(boxes), dtype=bool), {}
        for reason, holds in reasons.items():
            left_out[reason] = int(np.count_nonzero(kept & holds))
            kept &= ~holds
        return boxes.at(kept), left_out

    def area(self, box: NDArray[np.float64], frame: tuple[int, int]) -> tuple[int, int, int, int]:
        """Gives left, top, right and bottom of a crop in whole pixels, one at least, of a frame."""
        low, high = [], []
        for start, size, most in zip(box[:2].tolist(), box[2:].tolist(), frame, strict=True):
            beyond = self.padding * size
            low.append(min(max(round(start - beyond), 0), most - 1))
            high.append(min(max(round(start + size + beyond), low[-1] + 1), most))
        return (*low, *high)


def _overlaps(boxes: Boxes) -> NDArray[np.float64]:
    """Gives the largest share of each box that another of its frame covers, (M,)."""
    found = np.zeros(len(boxes))
    starts = np.flatnonzero(np.diff(boxes.frame, prepend=-1))
    for start, stop in zip(starts, [*starts[1:], len(boxes)], strict=True):
        box = boxes.box[start:stop]
        low, high = box[:, :2], box[:, :2] + box[:, 2:]
        sides = np.minimum(high[:, None], high) - np.maximum(low[:, None], low)
        shared = sides.clip(min=0).prod(axis=2)
        np.fill_diagonal(shared, 0)
        found[start:stop] = shared.max(axis=1) / box[:, 2:].prod(axis=1)
    return found
