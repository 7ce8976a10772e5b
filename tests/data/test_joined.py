from __future__ import annotations

from pathlib import Path

import pytest

from pplr_lightning.data import ImageFolder, Joined, MarketLayout, ReIDDataset, Sample, Splits
from pplr_lightning.data.datasets import frame_numbers

from .trees import plant, touch


class Listed(ReIDDataset):
    """A reader whose samples are given."""

    def __init__(self, name: str, train, query=(), gallery=()) -> None:
        self.splits = Splits(
            *(
                [Sample(f"{name}/{split}{i}.png", *pair) for i, pair in enumerate(pairs)]
                for split, pairs in (("t", train), ("q", query), ("g", gallery))
            )
        )
        self.prepared = 0

    def prepare(self) -> None:
        self.prepared += 1

    def load(self) -> Splits:
        return self.splits


@pytest.fixture
def members() -> list[Listed]:
    return [
        Listed("a", [(2, 1), (7, 3)], [(1, 1)], [(-1, 2), (0, 6), (1, 2)]),
        Listed("b", [(-1, -1), (-1, -1)]),
        Listed("c", [(0, 1), (3, 2)], [(9, 0)], [(9, 1)]),
    ]


def ids(samples) -> list[tuple[int, int]]:
    return [sample[1:3] for sample in samples]


def test_ids_are_shared_by_no_two_sets(members):
    train, query, gallery = Joined(members).load()
    # The first has persons up to 7 and cameras up to 6, the second none that are known.
    assert ids(train) == [(2, 1), (7, 3), (-1, -1), (-1, -1), (8, 8), (11, 9)]
    assert [Path(sample.path).parent.name for sample in train] == list("aabbcc")
    assert (query, gallery) == (members[0].splits.query, members[0].splits.gallery)


def test_tracklets_of_two_sets_stay_apart():
    # Of cameras that are not known, which no shift tells apart.
    members = [Listed("a", [(1, -1, 4), (1, -1, -1)]), Listed("b", [(1, -1, 4), (1, -1, 4)])]
    train = Joined(members).load().train
    assert [sample.tracklet_id for sample in train] == [4, -1, 9, 9]


def test_frames_stay_those_of_their_cameras():
    members = [Listed(name, [(1, 0, 4, 7), (1, 0, 5, 7), (1, 0, 5, -1, 2)]) for name in "ab"]
    train = Joined(members).load().train
    assert [sample.frame for sample in train] == [7, 7, -1] * 2
    assert [sample.clothes_id for sample in train] == [-1, -1, 2] * 2
    assert frame_numbers(train) == [0, 0, -1, 1, 1, -1]


def test_each_can_be_evaluated(members):
    first, second, third = (Joined(members, evaluate=number).load() for number in range(3))
    assert first.train == second.train == third.train
    assert (second.query, second.gallery) == ([], [])
    assert ids(third.query) == [(17, 7)]
    assert ids(third.gallery) == [(17, 8)]


def test_one_set_stays_as_it_is(members):
    assert Joined(members[:1]).load() == members[0].splits


def test_prepares_every_set(members):
    Joined(members).prepare()
    assert [member.prepared for member in members] == [1, 1, 1]


@pytest.mark.parametrize("evaluate", [-1, 3])
def test_no_such_set(members, evaluate):
    with pytest.raises(ValueError, match=rf"evaluate={evaluate}: .* from 0 to 2"):
        Joined(members, evaluate=evaluate)


def test_no_set():
    with pytest.raises(ValueError, match="at least one data set"):
        Joined([])


def test_the_same_images_twice(tmp_path):
    touch(tmp_path / "a/1.png")
    twice = Joined([ImageFolder(tmp_path), ImageFolder(tmp_path / "a/..")])
    with pytest.raises(ValueError, match=r"1.png is a training image of two of the datasets"):
        twice.load()


def test_training_on_test_images(tmp_path):
    splits = ("bounding_box_train", "query", "bounding_box_test")
    market = plant(
        tmp_path, {split: [f"000{i}_c1s1_000001_01.jpg"] for i, split in enumerate(splits)}
    )
    joined = Joined([MarketLayout(market), ImageFolder(market / "bounding_box_test")])
    with pytest.raises(ValueError, match="training would see test images"):
        joined.load()
