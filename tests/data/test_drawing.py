from __future__ import annotations

from dataclasses import replace
from io import BytesIO
from itertools import pairwise

import numpy as np
import pytest
from PIL import Image

from pplr_lightning.data.drawing import (
    Canvas,
    Eye,
    Light,
    Paint,
    Pose,
    draw_crop,
    draw_person,
    make_camera,
    make_person,
    start_walk,
)
from pplr_lightning.data.drawing.exposure import compress, halve, noise
from pplr_lightning.data.drawing.people import Lower, Upper, stream
from pplr_lightning.data.drawing.places import THINGS, Thing, draw_place, draw_thing, make_place
from pplr_lightning.data.drawing.scenes import Walk
from pplr_lightning.data.drawing.solids import Solid, draw_solid, turn

WHITE, RED = Paint((255, 255, 255)), (250, 0, 0)


VIEWS = {"front": 0, "left": 90, "back": 180, "right": 270}
EYE = Eye((55, 110), 2.0, 10, 500.0)
LIGHT = Light((0.0, -0.6, -0.8), 60.0, 60.0)
FLAT = np.zeros((64, 64), np.int8)


def _is(canvas: Canvas, colour: tuple[int, int, int]) -> np.ndarray:
    """Where the canvas has a colour, however it is lit."""
    red, green, blue = colour
    return canvas.pixels == red | green << 8 | blue << 16


def _draw(person, view: str, *, eye: Eye = EYE, **pose) -> Canvas:
    canvas = Canvas.blank(220, 110)
    pose = Pose(VIEWS[view], **pose)
    draw_person(canvas, person, pose, eye=eye, light=LIGHT, folds=FLAT)
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
    seen = {v: _is(_draw(replace(person, upper=jacket), v), RED).sum() for v in VIEWS}
    assert seen["back"] == 0
    assert seen["front"] > 2 * max(seen["left"], seen["right"])


def test_handbag_hangs_on_its_side(person):
    carrier = replace(person, bag="handbag", bag_side="left", bag_colour=RED)
    assert _is(_draw(carrier, "left"), RED).sum() > 2 * _is(_draw(carrier, "right"), RED).sum()
    # The person's left is the image's right when they face us.
    for view, facing in (("front", True), ("back", False)):
        columns = np.nonzero(_is(_draw(carrier, view), RED))[1]
        assert (columns.mean() > 55) == facing


def test_backpack_shows_from_the_back(person):
    carrier = replace(person, bag="backpack", bag_colour=RED)
    seen = {view: _is(_draw(carrier, view), RED).sum() for view in VIEWS}
    assert seen["back"] > seen["left"] > 0 < seen["right"]
    assert seen["back"] > 2 * seen["front"] > 0  # straps


def test_print_shows_from_the_front_only(person):
    printed = replace(person, upper=replace(person.upper, logo=RED))
    assert _is(_draw(printed, "front"), RED).sum() > 200
    assert not _is(_draw(printed, "back"), RED).any()


def test_profile_is_narrower(person):
    width = {view: np.ptp(np.nonzero(_draw(person, view, stride=0).pixels)[1]) for view in VIEWS}
    assert width["left"] < 0.8 * width["front"]


def test_from_above_a_person_is_shorter(person):
    rows = [
        np.ptp(np.nonzero(_draw(person, "front", eye=EYE._replace(pitch=pitch)).pixels)[0])
        for pitch in (0, 30, 50)
    ]
    assert 195 < rows[0] < 210
    assert rows[0] > rows[1] + 10 > rows[2] + 20


def test_legs_move(person):
    first, same, later = (_draw(person, "left", phase=phase) for phase in (90, 450, 180))
    np.testing.assert_array_equal(first.pixels, same.pixels)
    moved = first.pixels != later.pixels
    assert moved[120:].sum() > 3 * moved[:50].sum()


def test_body_turns_its_left_side_to_the_camera():
    x, y, z = turn((1.0, 2.0, 0.0), 90)
    assert (x, y, z) == pytest.approx((0, 2, -1))


def _ball(z: float, colour: tuple[int, int, int]) -> Solid:
    return Solid((0, 50, z), (0, 50, z), (20.0, 20.0), Paint(colour))


def test_ball_is_round_and_lit_from_its_side():
    canvas, depths = Canvas.blank(220, 110), np.full((220, 110), np.inf, np.float32)
    sun = Light((-0.8, 0.0, -0.6), 40.0, 60.0)
    draw_solid(canvas, depths, _ball(0, RED), eye=EYE, yaw=0, light=sun, folds=FLAT)
    inside = _is(canvas, RED)
    assert inside.sum() == pytest.approx(np.pi * 40**2, rel=0.03)
    assert canvas.light[110, 25] > canvas.light[110, 55] > canvas.light[110, 85] == 40
    assert np.isinf(depths[~inside]).all()
    assert depths[110, 55] == pytest.approx(480, abs=1)


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_nearer_solid_hides_the_other_whatever_comes_first(order):
    canvas, depths = Canvas.blank(220, 110), np.full((220, 110), np.inf, np.float32)
    balls = (_ball(0, RED), _ball(-30, (0, 9, 0)))
    for number in order:
        draw_solid(canvas, depths, balls[number], eye=EYE, yaw=0, light=LIGHT, folds=FLAT)
    assert _is(canvas, (0, 9, 0))[110, 55]
    assert _is(canvas, RED).any()  # it stands out on the top: the camera looks down


def test_people_share_a_wardrobe():
    people = [make_person(0, number) for number in range(100)]
    assert len(set(people)) == 100
    assert len({person.upper for person in people}) == 20
    assert len({(person.upper, person.lower) for person in people}) > 50


@pytest.mark.parametrize("kind", THINGS)
def test_things_stand_on_the_ground(kind):
    canvas, eye = Canvas.blank(220, 700), EYE._replace(centre=(350, 110))
    draw_thing(canvas, Thing(kind, 0.0, 0.0, RED, 1.0), eye=eye, rng=stream(0))
    rows, columns = np.nonzero(canvas.pixels)
    assert rows.max() == pytest.approx(eye.project((0, 100, 0))[1], abs=12)
    assert columns.mean() == pytest.approx(350, abs=20)


@pytest.mark.parametrize("number", range(8))
def test_place_fills_the_canvas_with_wall_over_ground(number):
    canvas = Canvas.blank(220, 110)
    canvas.light[:] = 0
    place = make_place(3, number)
    draw_place(canvas, place, eye=EYE, light=LIGHT)
    assert (canvas.light > 10).all()
    assert (canvas.light < 250).all()
    assert not np.intersect1d(canvas.pixels[-1], canvas.pixels[0]).size


def test_a_building_keeps_the_sun_off(person):
    place = replace(make_place(0, 0), shade=(0.0, 0.0), line=None)
    canvas = Canvas.blank(220, 110)
    draw_place(canvas, place, eye=EYE, light=LIGHT)
    assert place.in_shade(-1, 50)
    assert not place.in_shade(1, 50)
    assert canvas.light[-1, 60:].mean() > 1.2 * canvas.light[-1, :50].mean()


def _crop(person, walk: Walk, step: int, key: int = 0) -> np.ndarray:
    camera = make_camera(0, 1, shift=0.0)
    crop = draw_crop(person, camera, stream(key), walk=walk, step=step)
    return crop.astype(int)


def test_crop_of_nobody_is_background():
    camera = make_camera(0, 1, shift=0.0)
    walk = start_walk(camera, stream(1))
    crop = draw_crop(None, camera, stream(0), walk=walk, image_size=(32, 16))
    assert crop.shape == (32, 16, 3)


def test_images_of_one_walk_are_alike(person):
    camera = make_camera(0, 1, shift=0.0)
    walks = [start_walk(camera, stream(9, number)) for number in range(8)]
    within = [abs(_crop(person, w, 0) - _crop(person, w, 1, 1)).mean() for w in walks]
    between = [abs(_crop(person, w, 0) - _crop(person, v, 1, 1)).mean() for w, v in pairwise(walks)]
    assert np.mean(within) < 0.9 * np.mean(between)
    assert min(within) > 1


def test_walker_casts_a_shadow(person):
    place = replace(make_place(0, 0), things=(), shade=None)
    walk = Walk(place, (0.0, 0.0), Pose())
    shown, empty = _crop(person, walk, 0), _crop(None, walk, 0)
    darker = (empty - shown).mean(-1)[108:]
    assert darker.max() > 25


def test_unshifted_cameras_change_no_colour():
    first, second = (make_camera(0, number, shift=0.0) for number in (1, 2))
    np.testing.assert_array_equal(first.tables, np.tile(np.arange(256), (3, 1)))
    np.testing.assert_array_equal(second.tables, first.tables)
    assert first.blur == second.blur == 0
    for name in ("noise", "quality", "pitch", "distance", "light", "tint"):
        assert getattr(first, name) == getattr(second, name)


@pytest.mark.parametrize("quality", [88, 60, 38])
def test_compression_loses_about_what_jpeg_does(quality):
    canvas = Canvas.blank(256, 128)
    eye = Eye((64, 128), 2.2, 10, 500.0)
    draw_place(canvas, make_place(0, 1), eye=eye, light=LIGHT)
    draw_person(canvas, make_person(0, 1), Pose(30), eye=eye, light=LIGHT, folds=FLAT)
    image = np.clip(halve(canvas.planes()) + noise(stream(0), 4, (3, 128, 64)), 0, 255)
    ours, file = compress(image, quality), BytesIO()
    Image.fromarray(image.transpose(1, 2, 0).astype(np.uint8)).save(file, "jpeg", quality=quality)
    theirs = np.asarray(Image.open(file)).transpose(2, 0, 1).astype(int)
    lost, lost_by_jpeg = abs(ours - image).mean(), abs(theirs - image).mean()
    assert lost == pytest.approx(lost_by_jpeg, rel=0.25)
    assert abs(ours - theirs).mean() < lost_by_jpeg


def test_compression_leaves_what_is_even():
    image = np.full((3, 33, 17), 128, dtype=np.int16)
    np.testing.assert_array_equal(compress(image, 50), image)
