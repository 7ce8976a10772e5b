from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from pplr_lightning.data.drawing import (
    VIEWS,
    Canvas,
    Paint,
    draw_crop,
    draw_person,
    make_camera,
    make_person,
)
from pplr_lightning.data.drawing.people import Lower, Upper, stream

WHITE, RED = Paint((255, 255, 255)), (250, 0, 0)


def _has(canvas: Canvas, colour: tuple[int, int, int]) -> bool:
    return bool((canvas.planes() == np.array(colour)[:, None, None]).all(0).any())


def _draw(person, view: str) -> Canvas:
    canvas = Canvas.blank(220, 110)
    draw_person(canvas.frame((55, 5), (2, 2)), person, view=view)
    return canvas


def test_polygon_is_the_same_either_way_round():
    corners = [(2, 1), (17, 4), (14, 18), (5, 15)]
    first, second = Canvas.blank(20, 20), Canvas.blank(20, 20)
    first.polygon(corners, WHITE)
    second.polygon(corners[::-1], WHITE)
    np.testing.assert_array_equal(first.pixels, second.pixels)
    inside = first.planes()[0] == 255
    assert inside[10, 10]
    assert not inside[0, 0]
    # The area by the shoelace formula, give or take the rim.
    assert inside.sum() == pytest.approx(179.5, rel=0.15)


def test_rectangle_holds_both_its_ends():
    canvas = Canvas.blank(10, 10)
    canvas.rectangle(6, 1, 2, 4, WHITE)
    rows, columns = np.nonzero(canvas.pixels)
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (1, 4, 2, 6)


@pytest.mark.parametrize("x", [-100, -5, 5, 15, 100])
def test_shapes_are_cut_at_the_rim(x):
    canvas = Canvas.blank(10, 10)
    canvas.ellipse((x, 5), (8, 3), WHITE)
    canvas.limb((x, 5), (x + 3, 40), (4, 2), WHITE)
    canvas.rectangle(x, -5, x + 2, 50, WHITE)
    assert canvas.planes().shape == (3, 10, 10)
    assert canvas.pixels.any() == (abs(x - 5) < 20)


def test_frame_moves_and_scales():
    direct, framed = Canvas.blank(40, 40), Canvas.blank(40, 40)
    direct.rectangle(10, 12, 20, 24, WHITE)
    framed.frame((4, 6), (2, 3)).frame((1, 1)).rectangle(2, 1, 7, 5, WHITE)
    np.testing.assert_array_equal(direct.pixels, framed.pixels)


@pytest.mark.parametrize(
    ("pattern", "rows"),
    [
        ("plain", ["1111", "1111", "1111", "1111"]),
        ("stripes", ["1111", "1111", "2222", "2222"]),
        ("bars", ["1122", "1122", "1122", "1122"]),
        ("checks", ["1122", "1122", "2211", "2211"]),
    ],
)
def test_patterns(pattern, rows):
    canvas = Canvas.blank(4, 4)
    canvas.rectangle(0, 0, 3, 3, Paint((1, 0, 0), pattern, (2, 0, 0), 2))
    assert ["".join(map(str, row)) for row in canvas.planes()[0]] == rows


@pytest.fixture
def person():
    """Somebody in grey with nothing red about them."""
    grey = Paint((90, 90, 90))
    return replace(
        make_person(0, 1),
        upper=Upper("sleeves", grey, (1, 1, 1), 4.0, 52.0, None),
        lower=Lower("trousers", grey),
        hair_style="short",
        bag="none",
    )


def test_open_jacket_shows_what_is_under_it_except_from_the_back(person):
    jacket = replace(person.upper, kind="jacket", inner=RED)
    shown = {view: _has(_draw(replace(person, upper=jacket), view), RED) for view in VIEWS}
    assert shown == {"front": True, "left": True, "right": True, "back": False}


def test_handbag_shows_from_its_side_only(person):
    carrier = replace(person, bag="handbag", bag_side="left", bag_colour=RED)
    assert _has(_draw(carrier, "left"), RED)
    assert not _has(_draw(carrier, "right"), RED)
    # The person's left is the image's right when they face us.
    for view, facing in (("front", True), ("back", False)):
        columns = np.nonzero((_draw(carrier, view).planes().T == RED).all(-1))[0]
        assert (columns.mean() > 55) == facing


def test_print_shows_from_the_front_only(person):
    shirt = replace(person.upper, logo=RED)
    assert [view for view in VIEWS if _has(_draw(replace(person, upper=shirt), view), RED)] == [
        "front"
    ]


def test_profile_is_narrower(person):
    width = {view: np.ptp(np.nonzero(_draw(person, view).pixels)[1]) for view in VIEWS}
    assert width["left"] < 0.8 * width["front"]


def test_unknown_view_is_refused(person):
    with pytest.raises(ValueError, match=r"view must be one of .*got 'top'"):
        _draw(person, "top")


def test_people_share_a_wardrobe():
    people = [make_person(0, number) for number in range(100)]
    assert len(set(people)) == 100
    assert len({person.upper for person in people}) == 20
    assert len({(person.upper, person.lower) for person in people}) > 50


def test_crop_of_nobody_is_background():
    camera = make_camera(0, 1, shift=0.0)
    crop = draw_crop(None, camera, stream(0), image_size=(32, 16))
    assert crop.shape == (32, 16, 3)


def test_unshifted_cameras_change_no_colour():
    first, second = (make_camera(0, number, shift=0.0) for number in (1, 2))
    np.testing.assert_array_equal(first.tables, np.tile(np.arange(256), (3, 1)))
    np.testing.assert_array_equal(second.tables, first.tables)
    assert first.blur == second.blur == 0
