from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
from scipy.io import savemat

from pplr_lightning.data import ILIDSVID, LPW, DukeMTMCVideoReID, PRID2011Video
from pplr_lightning.data.datasets import first_frames

from .trees import ids, plant, touch

pytestmark = pytest.mark.filterwarnings("ignore:.*as published has", "ignore:.*taken down")


def tracklets(samples) -> list[tuple[int, int]]:
    """The person and the camera of each tracklet."""
    return ids(first_frames(samples))


class TestPRID2011Video:
    @pytest.fixture
    def root(self, tmp_path) -> Path:
        names = [f"person_{person:04d}" for person in (1, 2, 4, 9)]
        frames = [f"{n:04d}.png" for n in (1, 2, 10)]
        folders = [f"multi_shot/cam_{camera}/{name}" for camera in "ab" for name in names]
        splits = [
            {"train": [names[n % 4], names[3 - n % 2]], "test": names[1:2]} for n in range(10)
        ]
        plant(tmp_path, dict.fromkeys(folders, frames))
        (tmp_path / "splits_prid2011.json").write_text(json.dumps(splits))
        return tmp_path

    def test_its_split(self, root):
        splits = PRID2011Video(root).load()
        assert tracklets(splits.train) == [(0, 0), (2, 0), (0, 1), (2, 1)]
        assert tracklets(splits.query) == [(1, 0)]
        assert tracklets(splits.gallery) == [(1, 1)]
        assert [Path(sample.path).name for sample in splits.query] == [
            "0001.png", "0002.png", "0010.png"
        ]  # fmt: skip
        assert tracklets(PRID2011Video(root, split=2).load().train) == [
            (1, 0), (2, 0), (1, 1), (2, 1)
        ]  # fmt: skip

    def test_counts_tracklets(self, root):
        with pytest.warns(UserWarning, match=r"holds 4 \+ 1 \+ 1 tracklets .* 178 \+ 89 \+ 89"):
            PRID2011Video(root).load()

    def test_bad_splits(self, root):
        path = root / "splits_prid2011.json"
        for text in ("no json", "[]", '[{"train": []}]', "[3]"):
            path.write_text(text)
            with pytest.raises(ValueError, match=r"prid2011.json: has no split 0 of the form"):
                PRID2011Video(root).load()
        path.write_text(json.dumps([{"train": ["person_0003"], "test": ["person_0001"]}]))
        with pytest.raises(FileNotFoundError, match="cam_a/person_0003: no such folder"):
            PRID2011Video(root).load()
        path.unlink()
        with pytest.raises(FileNotFoundError, match=r"splits_prid2011.json: no such file; PRID"):
            PRID2011Video(root).load()

    @pytest.mark.parametrize(
        ("train", "message"),
        [
            ("person_0001", "'person_0001' is no list"),
            (["../cam_b/person_0001"], "'../cam_b/person_0001' is no name of a folder"),
            (["/etc"], "'/etc' is no name"),
            ([".."], "'..' is no name"),
            (["."], "'.' is no name"),
            (["a\\b"], "is no name"),
            ([3], "'3' is no name"),
            (["person_0001"] * 2, "twice"),
        ],
    )
    def test_names_that_are_none(self, root, train, message):
        path = root / "splits_prid2011.json"
        path.write_text(json.dumps([{"train": train, "test": ["person_0004"]}]))
        form = r"prid2011.json: has no split 0 of the form .*" + re.escape(message)
        with pytest.raises(ValueError, match=form):
            PRID2011Video(root).load()

    def test_person_of_training_and_test(self, root):
        people = ["person_0001", "person_0002"]
        text = json.dumps([{"train": people, "test": people[1:]}])
        (root / "splits_prid2011.json").write_text(text)
        with pytest.raises(ValueError, match=r"json: in split 0 person_0002 is in train and test"):
            PRID2011Video(root).load()


class TestILIDSVID:
    @pytest.fixture
    def root(self, tmp_path) -> Path:
        people = ("person001", "person003", "person010", "person319")  # numbers have gaps
        plant(
            tmp_path,
            {
                f"i-LIDS-VID/sequences/cam{camera}/{person}": ["a_00002.png", "a_00001.png"]
                for camera in (1, 2)
                for person in people
            },
        )
        folder = tmp_path / "train-test people splits"
        folder.mkdir()
        order = np.array([[1, 4, 3, 2], [2, 3, 1, 4]] * 5, dtype=np.uint8)
        savemat(folder / "train_test_splits_ilidsvid.mat", {"ls_set": order})
        return tmp_path

    def test_the_first_half_is_tested(self, root):
        splits = ILIDSVID(root).load()
        assert tracklets(splits.query) == [(0, 0), (3, 0)]
        assert tracklets(splits.gallery) == [(0, 1), (3, 1)]
        assert tracklets(splits.train) == [(1, 0), (2, 0), (1, 1), (2, 1)]
        assert "/person319/" in splits.query[-1].path
        assert tracklets(ILIDSVID(root, split=1).load().query) == [(1, 0), (2, 0)]

    def test_other_people(self, root):
        for folder in sorted(root.glob("*/*/cam1/person0*"))[:2]:
            for image in folder.iterdir():
                image.unlink()
            folder.rmdir()
        with pytest.raises(ValueError, match=r"ilidsvid.mat: has no split 0 of the 2 people in .*"):
            ILIDSVID(root).load()


class TestDukeMTMCVideoReID:
    def test_both_ways_to_name(self, tmp_path):
        plant(
            tmp_path,
            {
                "train/0001/0003": ["0001_C6_F0002_X30835.jpg", "0001_C6_F0003_X30847.jpg"],
                "train/0001/0004": ["0001C7F0001X30823.jpg"],
                "query/0005/0001": ["0005_C1_F0001_X1.jpg"],
                "gallery/0005/0001": ["0005_C2_F0001_X1.jpg", "0005_C2_F0002_X13.jpg"],
                "gallery/0006/0001": ["0006_C2_F0001_D1.jpg"],
            },
        )
        with pytest.warns(UserWarning, match="taken down"):
            splits = DukeMTMCVideoReID(tmp_path).load()
        assert tracklets(splits.train) == [(1, 6), (1, 7)]
        assert tracklets(splits.query) == [(5, 1)]
        assert tracklets(splits.gallery) == [(5, 2), (6, 2)]
        touch(tmp_path / "query/0005/0001/0005_C3_F0002_X1.jpg")
        with pytest.raises(ValueError, match="query/0005/0001: holds frames of several people or"):
            DukeMTMCVideoReID(tmp_path).load()


def test_lpw(tmp_path):
    frames = ["2.jpg", "10.jpg", "1.jpg"]
    folders = [f"scen{scene}/view{view}/{person}" for scene, views in ((1, 3), (2, 4), (3, 4))
               for view in range(1, views + 1) for person in (1, 2)]  # fmt: skip
    splits = LPW(plant(tmp_path, dict.fromkeys(folders, frames))).load()
    assert tracklets(splits.query) == [(0, 1), (1, 1)]
    assert tracklets(splits.gallery) == [(0, 0), (1, 0), (0, 2), (1, 2)]
    assert {person for person, _ in ids(splits.train)} == {2, 3, 4, 5}  # anew in each scene
    assert {camera for _, camera in ids(splits.train)} == set(range(3, 11))
    names = [re.sub(r".*/", "", sample.path) for sample in splits.query[:3]]
    assert names == ["1.jpg", "2.jpg", "10.jpg"]
    for image in (tmp_path / "scen1/view3/1").iterdir():
        image.unlink()
    with pytest.raises(ValueError, match="scen1/view3/1: the folder holds no image"):
        LPW(tmp_path).load()
