from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy.io import savemat

from pplr_lightning.data import GRID, PRID2011, QMULiLIDS, VIPeR

from .trees import ids, plant, touch

pytestmark = pytest.mark.filterwarnings("ignore:.*as published has")


@pytest.fixture
def viper(tmp_path) -> Path:
    names = [f"{person:03d}_{{}}.bmp" for person in (0, 1, 2, 5, 7, 9)]  # numbers have gaps
    folders = {"cam_a": [name.format(45) for name in names]}
    folders["cam_b"] = [name.format(person % 90) for person, name in enumerate(names)]
    return plant(tmp_path / "VIPeR", folders)


class TestVIPeR:
    def test_halves_of_the_people(self, viper):
        splits = VIPeR(viper).load()
        assert [len(split) for split in splits] == [6, 3, 3]
        assert {camera for _, camera in ids(splits.query)} == {0}
        assert {camera for _, camera in ids(splits.gallery)} == {1}
        people = [sorted({person for person, _ in ids(split)}) for split in splits]
        assert people[1] == people[2]
        assert sorted(people[0] + people[1]) == [0, 1, 2, 5, 7, 9]

    def test_odd_splits_search_the_other_way(self, viper):
        even, odd, next_one = (VIPeR(viper, split=split).load() for split in (4, 5, 6))
        assert odd == even._replace(query=even.gallery, gallery=even.query)
        assert next_one.train != even.train

    def test_a_split_is_the_same_everywhere(self, viper, tmp_path):
        moved = viper.rename(tmp_path / "elsewhere")
        assert sorted({person for person, _ in ids(VIPeR(moved).load().query)}) == [2, 7, 9]

    def test_person_of_one_camera(self, viper):
        touch(viper / "cam_a/011_0.bmp")
        with pytest.raises(ValueError, match=r"VIPeR: person 0011 is under one of the two cameras"):
            VIPeR(viper).load()

    @pytest.mark.parametrize("split", [-1, 20])
    def test_no_such_split(self, split):
        with pytest.raises(ValueError, match=rf"split={split}: VIPeR has 20, counted from 0"):
            VIPeR("nowhere", split=split)

    def test_all_is_for_test(self, viper):
        with pytest.raises(ValueError, match="split=all: the splits of VIPeR share people"):
            VIPeR(viper, split="all").load()


class TestQMULiLIDS:
    @pytest.fixture
    def root(self, tmp_path) -> Path:
        names = [f"{person:04d}{n:03d}.jpg" for person in range(1, 6) for n in range(1, person + 2)]
        return plant(tmp_path, {"Persons": names})

    def test_two_images_of_the_tested(self, root):
        splits = QMULiLIDS(root).load()
        assert sorted(ids(splits.query)) == sorted(
            (person, -2) for person, _ in ids(splits.gallery)
        )
        assert {camera for _, camera in ids(splits.gallery)} == {-1}
        assert not {s.path for s in splits.query} & {s.path for s in splits.gallery}
        trained = {person for person, _ in ids(splits.train)}
        assert len(trained) == 2  # the smaller half
        assert len(splits.query) == 3
        assert len(splits.train) == sum(person + 1 for person in trained)
        queries = [QMULiLIDS(root, split=split).load().query for split in range(10)]
        assert len(set(map(str, queries))) > 5

    def test_counts(self, root):
        with pytest.warns(UserWarning, match=r"holds 20 images of 5 people; .* has 476 of 119"):
            QMULiLIDS(root).load()

    def test_one_image(self, root):
        touch(*(root / f"Persons/{person:04d}001.jpg" for person in range(100, 140)))
        with pytest.raises(ValueError, match=r"\d001.jpg: the only image of its person"):
            QMULiLIDS(root).load()

    def test_name(self, root):
        touch(root / "Persons/1.jpg")
        with pytest.raises(ValueError, match=r"1.jpg: the name is not of the form 0001001.jpg"):
            QMULiLIDS(root).load()


class TestGRID:
    @pytest.fixture
    def root(self, tmp_path) -> Path:
        name = "{:04d}_{}_25004_107_32_106_221.jpeg"
        folders = {"probe": [name.format(person, 1) for person in range(1, 5)]}
        folders["gallery"] = [name.format(person, 5 + person % 2) for person in range(1, 5)]
        touch(*(tmp_path / f"gallery/0000_{c}_25004_{c}_32_106_221.jpeg" for c in (1, 3, 8)))
        partitions = np.empty((1, 10), dtype=object)
        for split in range(10):
            trained = np.array([[1 + split % 4, 1 + (split + 1) % 4]], dtype=np.uint8)
            partitions[0, split] = {"a": 1, "b": 2, "c": trained}
        savemat(tmp_path / "features_and_partitions.mat", {"trainIdxAll": partitions})
        return plant(tmp_path, folders)

    def test_its_own_partition(self, root):
        splits = GRID(root, split=3).load()  # 4 and 1 train
        assert sorted(ids(splits.train)) == [(1, 1), (1, 6), (4, 1), (4, 5)]
        assert ids(splits.query) == [(2, 1), (3, 1)]
        assert ids(splits.gallery) == [(0, 1), (0, 3), (0, 8), (2, 5), (3, 6)]

    def test_other_file(self, root):
        savemat(root / "features_and_partitions.mat", {"train": [1]})
        with pytest.raises(ValueError, match=r"partitions.mat: does not hold .* split 0"):
            GRID(root).load()
        (root / "features_and_partitions.mat").write_bytes(b"no file of MATLAB")
        with pytest.raises(ValueError, match=r"partitions.mat: "):
            GRID(root).load()

    def test_no_file(self, root):
        (root / "features_and_partitions.mat").unlink()
        with pytest.raises(FileNotFoundError, match=r"partitions.mat: no such file; GRID has"):
            GRID(root).load()


def test_prid(tmp_path, monkeypatch):
    """A person beyond the common ones is another one under the other camera."""
    monkeypatch.setattr(PRID2011, "common", 4)
    name = "person_{:04d}.png"
    folders = {
        "single_shot/cam_a": [name.format(person) for person in range(1, 8)],
        "single_shot/cam_b": [name.format(person) for person in range(1, 10)],
    }
    splits = PRID2011(plant(tmp_path, folders)).load()
    assert [len(split) for split in splits] == [4, 2, 7]
    assert {person for person, _ in ids(splits.train)} < {1, 2, 3, 4}
    assert {camera for _, camera in ids(splits.query)} == {0}
    assert {camera for _, camera in ids(splits.gallery)} == {1}
    tested = {person for person, _ in ids(splits.query)}
    assert {person for person, _ in ids(splits.gallery)} == tested | {5, 6, 7, 8, 9}
