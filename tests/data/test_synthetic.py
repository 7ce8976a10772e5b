from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pplr_lightning.data import synthetic
from pplr_lightning.data.synthetic import DrawnImage, SyntheticReID

SMALL = {
    "train_identities": 5,
    "test_identities": 4,
    "cameras": 3,
    "images_per_identity": 6,
    "image_size": (32, 16),
    "distractors": 4,
    "junk": 3,
}


@pytest.fixture(scope="module")
def drawn(tmp_path_factory) -> SyntheticReID:
    dataset = SyntheticReID(tmp_path_factory.mktemp("drawn") / "set", **SMALL)
    dataset.prepare()
    return dataset


def _sha256(pixels: np.ndarray) -> str:
    return hashlib.sha256(pixels.tobytes()).hexdigest()


def test_reads_as_market1501(drawn):
    train, query, gallery = drawn.load()
    names = {Path(sample.path).name for sample in (*train, *query, *gallery)}
    assert "0002_c" in "".join(names)
    assert len(names) == len(train) + len(query) + len(gallery) == len(list(drawn.images()))
    for sample in (*train, *query, *gallery):
        stem = Path(sample.path).name
        person = "-1" if sample.person_id == -1 else f"{sample.person_id:04d}"
        assert re.match(rf"{person}_c{sample.camera_id}s[1-9]_\d{{6}}_01\.png$", stem)


def test_four_images_in_a_row_are_one_pass():
    images = list(SyntheticReID(images_per_identity=30, cameras=2).images())
    walks = Counter((*image[1:3], image.sequence) for image in images if image.person_id > 0)
    assert max(walks.values()) == 4
    assert len({image.name for image in images}) == len(images)
    for first, second in pairwise(images):
        if first[1:3] == second[1:3] and first.person_id > 0:
            if second.number % 4:
                assert second.sequence == first.sequence
                assert second.frame == first.frame + 25
            else:
                assert second.sequence == first.sequence + 1


def test_counts_are_those_asked_for(drawn):
    train, query, gallery = drawn.load()
    identities = Counter(sample.person_id for sample in (*train, *query, *gallery))
    assert identities.pop(0) == 4
    assert identities.pop(-1) == 3
    assert len(identities) == 9
    assert all(4 <= count <= 8 for count in identities.values())
    assert {sample.camera_id for sample in (*train, *query, *gallery)} == {1, 2, 3}


def test_training_and_test_identities_are_disjoint(drawn):
    train, query, gallery = drawn.load()
    trained = {sample.person_id for sample in train}
    tested = {sample.person_id for sample in query}
    assert trained == {2, 4, 6, 8, 10}
    assert tested == {1, 3, 5, 7}
    assert tested == {sample.person_id for sample in gallery} - {0, -1}


@pytest.mark.parametrize(("cameras", "images"), [(2, 4), (4, 11), (12, 30)])
def test_every_query_has_a_match_in_another_camera(cameras, images):
    dataset = SyntheticReID(cameras=cameras, images_per_identity=images)
    drawings = list(dataset.images())
    gallery = [image for image in drawings if image.folder == "bounding_box_test"]
    queries = [image for image in drawings if image.folder == "query"]
    seen = {(image.person_id, image.camera_id) for image in gallery}
    assert len(queries) == len({(image.person_id, image.camera_id) for image in queries})
    for image in queries:
        assert any(person == image.person_id and c != image.camera_id for person, c in seen)


@pytest.mark.parametrize("size", [(32, 16), (96, 48), (48, 48), (40, 90), (61, 33)])
def test_images_have_the_size_asked_for(size):
    dataset = SyntheticReID(image_size=size, occlusion=1.0)
    for number in range(4):
        for person_id in (2, 0, -1):
            pixels = dataset.draw(DrawnImage("", person_id, 1, number))
            assert pixels.shape == (*size, 3)
            assert pixels.dtype == np.uint8
            assert pixels.std() > 5


def test_files_hold_what_draw_returns(drawn):
    for image in drawn.images():
        with Image.open(drawn.root / image.folder / image.name) as file:
            np.testing.assert_array_equal(np.asarray(file), drawn.draw(image))


def test_seed_decides_the_pixels():
    image = DrawnImage("query", 1, 2, 0)
    first = SyntheticReID(seed=3).draw(image)
    np.testing.assert_array_equal(first, SyntheticReID(seed=3).draw(image))
    assert (first != SyntheticReID(seed=4).draw(image)).mean() > 0.5


def test_more_identities_leave_the_other_images_alone():
    few = SyntheticReID(**SMALL)
    many = SyntheticReID(**(SMALL | {"train_identities": 9, "test_identities": 8, "junk": 9}))
    drawings = list(few.images())
    assert set(drawings) < set(many.images())
    for image in drawings[::7]:
        np.testing.assert_array_equal(few.draw(image), many.draw(image))


@pytest.mark.parametrize("processes", [2, 3])
def test_any_number_of_processes_draws_the_same(drawn, tmp_path, monkeypatch, processes):
    monkeypatch.setattr(synthetic, "free_cores", lambda: processes)
    monkeypatch.setattr(synthetic, "_FEWEST", 1)
    SyntheticReID(tmp_path / "set", **SMALL).prepare()
    files = sorted(path.relative_to(drawn.root) for path in drawn.root.rglob("*.*"))
    assert files == sorted(
        path.relative_to(tmp_path / "set") for path in (tmp_path / "set").rglob("*.*")
    )
    for file in files:
        assert (tmp_path / "set" / file).read_bytes() == (drawn.root / file).read_bytes()


def test_order_of_drawing_does_not_matter():
    images = list(SyntheticReID(**SMALL).images())[::5]
    forward, backward = SyntheticReID(**SMALL), SyntheticReID(**SMALL)
    first = [_sha256(forward.draw(image)) for image in images]
    second = [_sha256(backward.draw(image)) for image in reversed(images)]
    assert first == second[::-1]


# The same on every machine. Raise DRAWING_VERSION when a change of the drawing changes these.
@pytest.mark.parametrize(
    ("image", "options", "digest"),
    [
        (
            DrawnImage("query", 1, 1, 0),
            {},
            "d4d11b33d245002c50ee81c6b7d6a99377e6ae4ca43d56c0d231781c186bbf6f",
        ),
        (
            DrawnImage("bounding_box_train", 2, 3, 1),
            {"camera_shift": 1.0, "occlusion": 1.0},
            "80996f112ebdec8cc64cafa0aba4683083c4ce748c6b0f2a3396a1a110b0a983",
        ),
        (
            DrawnImage("bounding_box_test", 0, 2, 5),
            {"image_size": (61, 33), "seed": 7},
            "bae273c235286ab077bda14bdce02f1ce43d663622864c765bf5f6187ff3965a",
        ),
        (
            DrawnImage("bounding_box_test", -1, 4, 7),
            {"camera_shift": 0.0},
            "47ca40753912b603581547682e60c485a0bae3a27de255b9deb31a422ce3240e",
        ),
    ],
)
def test_pixels_are_pinned(image, options, digest):
    assert _sha256(SyntheticReID(**options).draw(image)) == digest


def _camera_spread(shift: float) -> float:
    """Standard deviation between cameras of the mean colour of the same 24 people."""
    dataset = SyntheticReID(camera_shift=shift, image_size=(32, 16), seed=1)
    means = [
        np.mean([dataset.draw(DrawnImage("", 2 * i, camera, 0)) for i in range(1, 25)], (0, 1, 2))
        for camera in (1, 2, 3, 4)
    ]
    return float(np.std(means, axis=0).mean())


def test_camera_shift_sets_how_much_cameras_differ():
    alike, mild, strong = (_camera_spread(shift) for shift in (0.0, 0.3, 1.0))
    assert alike < 5 < mild < strong
    assert strong > 4 * alike


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"train_identities": 0}, "train_identities must be at least 1, got 0"),
        ({"test_identities": 0}, "test_identities must be at least 1, got 0"),
        ({"cameras": 1}, "cameras must be at least 2, got 1"),
        ({"images_per_identity": 3}, "images_per_identity must be at least 4, got 3"),
        ({"image_size": (8, 64)}, "height.* must be at least 16, got 8"),
        ({"image_size": (64, 8)}, "width.* must be at least 16, got 8"),
        ({"image_size": (64,)}, "must be .height, width., got .64"),
        ({"distractors": -1}, "distractors must be at least 0, got -1"),
        ({"distractors": 10**19}, "distractors must be at most 1,000,000, got 1"),
        ({"junk": -2}, "junk must be at least 0, got -2"),
        ({"seed": -1}, "seed must be at least 0, got -1"),
        ({"camera_shift": 1.5}, r"camera_shift must be in \[0, 1\], got 1.5"),
        ({"occlusion": float("nan")}, r"occlusion must be in \[0, 1\], got nan"),
    ],
)
def test_refuses_parameters_out_of_range(options, message):
    with pytest.raises(ValueError, match=message):
        SyntheticReID(**options)


def test_constructor_writes_nothing(tmp_path):
    SyntheticReID(tmp_path / "set")
    assert list(tmp_path.iterdir()) == []


def test_prepare_draws_only_once(drawn, monkeypatch):
    monkeypatch.setattr(SyntheticReID, "draw", lambda *_: pytest.fail("drew again"))
    SyntheticReID(drawn.root, **SMALL).prepare()
    assert list(drawn.root.parent.iterdir()) == [drawn.root]


def test_prepare_draws_into_an_empty_folder(tmp_path):
    SyntheticReID(tmp_path, **SMALL).prepare()
    assert json.loads((tmp_path / "synthetic.json").read_text())["train_identities"] == 5


def test_prepare_refuses_a_set_with_other_parameters(drawn):
    other = SyntheticReID(drawn.root, **(SMALL | {"junk": 5, "image_size": [64, 32]}))
    message = r"image_size=\[32, 16\] instead of \[64, 32\], junk=3 instead of 5.*another folder"
    with pytest.raises(ValueError, match=message) as error:
        other.prepare()
    assert str(drawn.root) in str(error.value)


def test_prepare_refuses_foreign_files(tmp_path):
    (tmp_path / "holiday.jpg").touch()
    with pytest.raises(ValueError, match=f"{tmp_path.name} holds files.*another folder"):
        SyntheticReID(tmp_path, **SMALL).prepare()
    with pytest.raises(ValueError, match=r"holiday\.jpg is a file"):
        SyntheticReID(tmp_path / "holiday.jpg", **SMALL).prepare()
    assert [path.name for path in tmp_path.iterdir()] == ["holiday.jpg"]


def test_interrupted_prepare_leaves_nothing(tmp_path, monkeypatch):
    drawings = iter(range(10))

    def draw(*_):
        if next(drawings) == 9:
            raise KeyboardInterrupt
        return np.zeros((32, 16, 3), np.uint8)

    with monkeypatch.context() as patch:
        patch.setattr(SyntheticReID, "draw", draw)
        with pytest.raises(KeyboardInterrupt):
            SyntheticReID(tmp_path / "set", **SMALL).prepare()
    assert list(tmp_path.iterdir()) == []
    SyntheticReID(tmp_path / "set", **SMALL).prepare()
    assert (tmp_path / "set" / "synthetic.json").is_file()


def test_set_is_not_visible_until_it_is_whole(tmp_path, monkeypatch):
    root, draw = tmp_path / "set", SyntheticReID.draw

    def watched(self, image):
        # What a process killed at this point would leave behind.
        assert not root.exists()
        return draw(self, image)

    monkeypatch.setattr(SyntheticReID, "draw", watched)
    SyntheticReID(root, **SMALL).prepare()
    assert root.exists()


def test_two_processes_may_prepare_at_once(tmp_path, monkeypatch):
    root, draw = tmp_path / "set", SyntheticReID.draw
    others = [SyntheticReID(root, **SMALL)]

    def interrupted(self, image):
        if others:
            others.pop().prepare()
        return draw(self, image)

    monkeypatch.setattr(SyntheticReID, "draw", interrupted)
    SyntheticReID(root, **SMALL).prepare()
    assert list(tmp_path.iterdir()) == [root]
