from __future__ import annotations

import numpy as np
import pytest

from pplr_lightning.data.box_filter import BoxFilter
from pplr_lightning.data.boxes import Boxes


def boxes(*rows):
    table = np.array(rows, dtype=float)
    return Boxes(table[:, 0].astype(int), table[:, 1].astype(int), table[:, 2:])


def test_each_filter_leaves_out_its_own():
    some = boxes(
        (10, 1, 50, 50, 40, 100),
        (10, 2, 100, 50, 20, 100),  # narrow
        (10, 3, 150, 50, 60, 60),  # square
        (10, 4, 300, 0, 40, 100),  # at the upper border
        (10, 5, 280, 250, 40, 100),  # and beyond the lower one
        (20, 1, 50, 50, 40, 100),
        (20, 6, 60, 60, 60, 120),  # covers the one before by more than half
    )
    sizes = {10: (400, 300), 20: (400, 300)}
    kept, left_out = BoxFilter(max_overlap=0.6).select(some, sizes, "boxes")
    assert list(zip(kept.frame.tolist(), kept.track.tolist(), strict=True)) == [(10, 1), (20, 6)]
    assert left_out == {
        "outside the frame": 0,
        "small": 1,
        "of another shape": 1,
        "at the border": 2,
        "covered": 1,
    }
    every = BoxFilter(min_width=1, min_height=1, min_aspect=0, border=-1, max_overlap=1)
    assert len(every.select(some, sizes, "boxes")[0]) == len(some)
    assert BoxFilter(every=20).on_grid(some).track.tolist() == [1, 6]
    assert len(BoxFilter(border=60).select(some, sizes, "boxes")[0]) == 0


def test_boxes_outside_their_frame():
    """One is where a tracker guessed that somebody went; most are of another video."""
    some = boxes((10, 1, 50, 50, 40, 100), (10, 4, 400, 0, 40, 100), (20, 4, -40, 0, 40, 100))
    sizes = {10: (400, 300), 20: (400, 300)}
    kept, left_out = BoxFilter().select(some.at(some.frame == 10), sizes, "boxes")
    assert (kept.track.tolist(), left_out["outside the frame"]) == ([1], 1)
    message = (
        "^boxes: 2 of 3 boxes lie outside their frame, such as that of track 4 at 400, 0, where "
        "frame 10 is of 400 x 300 pixels: are they of another video"
    )
    with pytest.raises(ValueError, match=message):
        BoxFilter().select(some, sizes, "boxes")


def test_the_area_stays_in_the_frame():
    area = BoxFilter(padding=0.1).area
    assert area(np.array([50.0, 60, 40, 100]), (400, 300)) == (46, 50, 94, 170)
    assert area(np.array([-5.0, 250, 40, 100]), (400, 300)) == (0, 240, 39, 300)
    assert BoxFilter().area(np.array([-5.0, -7, 5.2, 7.4]), (400, 300)) == (0, 0, 1, 1)
    assert BoxFilter().area(np.array([399.6, 1.5, 40, 1]), (400, 300)) == (399, 2, 400, 3)


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ({"every": 0}, "--every must be at least 1"),
        ({"border": -2}, "--border must be at least -1"),
        ({"min_aspect": 3, "max_aspect": 2}, "--min_aspect 3 and --max_aspect 2: height over"),
        ({"max_overlap": 1.5}, r"--max_overlap must be in \[0, 1\]"),
        ({"padding": float("nan")}, r"--padding must be in \[0, 1\]"),
    ],
)
def test_options_out_of_range(option, message):
    with pytest.raises(ValueError, match=message):
        BoxFilter(**option)
