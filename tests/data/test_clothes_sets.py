from __future__ import annotations

import pytest

from pplr_lightning.data import LTCC, PRCC

from .trees import ids, plant, touch

pytestmark = pytest.mark.filterwarnings("ignore:.*as published has")


def test_ltcc(tmp_path):
    folders = {"train": ["000_1_c1_000001.png"], "query": ["144_1_c11_011239.png"]}
    folders["test"] = ["144_1_c2_000001.png", "144_3_c2_000001.png"]
    splits = LTCC(plant(tmp_path, folders)).load()
    assert ids(splits.train + splits.query) == [(0, 1), (144, 11)]
    assert [sample.clothes_id for sample in splits.gallery] == [1, 3]
    found = [
        [[sample.clothes_id for sample in matches] for matches in splits.matches(clothes=clothes)]
        for clothes in (None, "changed", "same")
    ]
    assert found == [[[1, 3]], [[3]], [[1]]]
    touch(tmp_path / "query/144_c11.png")
    with pytest.raises(ValueError, match=r"144_c11.png: the name is not of the form 144_1_c11_"):
        LTCC(tmp_path).load()


class TestPRCC:
    @pytest.fixture
    def root(self, tmp_path):
        names = [f"{camera}_cropped_rgb00{n}.jpg" for camera in "ABC" for n in (1, 2)]
        folders = {"rgb/train/001": names, "rgb/val/002": names}
        folders |= {f"rgb/test/{camera}/{p:03d}": ["1.jpg"] for camera in "ABC" for p in (7, 9)}
        return plant(tmp_path, folders)

    def test_queries_in_the_same_clothes_or_others(self, root):
        splits = PRCC(root).load()
        assert ids(splits.train) == [(1, camera) for camera in (0, 0, 1, 1, 2, 2)]
        assert [sample.clothes_id for sample in splits.train] == [0, 0, 0, 0, 1, 1]
        assert ids(splits.query) == [(7, 2), (9, 2)]
        assert ids(splits.gallery) == [(7, 0), (9, 0)]
        same = PRCC(root, queries="same")
        assert ids(same.load().query) == [(7, 1), (9, 1)]
        assert (same.protocol, same.variant) == ("single_gallery_shot", "PRCC, clothes same")

    def test_bad_input(self, root):
        with pytest.raises(ValueError, match="queries='B': PRCC has 'changed' and 'same'"):
            PRCC(root, queries="B")
        touch(root / "rgb/test/A/x/1.jpg")
        with pytest.raises(ValueError, match=r"rgb/test/A has a folder for each person.* 'x' is"):
            PRCC(root).load()
        with pytest.raises(FileNotFoundError, match="rgb/train: no such folder; PRCC has"):
            PRCC(root / "rgb").load()
