from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pplr_lightning.data import CUHK01, CUHK02, CUHK03Classic

from .trees import ids, plant, touch

pytestmark = pytest.mark.filterwarnings("ignore:.*as published has")


class TestCUHK01:
    @pytest.fixture
    def root(self, tmp_path) -> Path:
        names = [f"{person:04d}{n:03d}.png" for person in (1, 2, 4, 9, 12) for n in range(1, 5)]
        return plant(tmp_path, {"campus": names})

    def test_two_images_in_each_view(self, root):
        splits = CUHK01(root).load()
        assert [len(split) for split in splits] == [8, 6, 6]
        assert {camera for _, camera in ids(splits.query)} == {0}
        assert {Path(sample.path).stem[-1] for sample in splits.query} == {"1", "2"}
        assert {Path(sample.path).stem[-1] for sample in splits.gallery} == {"3", "4"}
        tested = {person for person, _ in ids(splits.query)}
        assert tested == {person for person, _ in ids(splits.gallery)}
        assert not tested & {person for person, _ in ids(splits.train)}

    def test_person_of_one_view(self, root):
        touch(root / "campus/0020001.png")
        with pytest.raises(ValueError, match="person 0020 is under one of the two cameras alone"):
            CUHK01(root).load()

    def test_fifth_image(self, root):
        touch(root / "campus/0001005.png")
        with pytest.raises(ValueError, match=r"0001005.png: the name is not of the form"):
            CUHK01(root).load()


def test_cuhk02_counts_people_anew_in_each_pair(tmp_path):
    plant(
        tmp_path,
        {
            f"P{pair}/cam{camera}": [f"{person:03d}_{n}.png" for person in (1, 2) for n in (1, 2)]
            for pair in range(1, 6)
            for camera in (1, 2)
        },
    )
    splits = CUHK02(tmp_path).load()
    assert [len(split) for split in splits] == [32, 4, 4]
    assert {(person // 2, camera // 2) for person, camera in ids(splits.train)} == {
        (pair, pair) for pair in range(4)
    }
    assert ids(splits.query) == [(8, 8), (8, 8), (9, 8), (9, 8)]
    assert ids(splits.gallery) == [(8, 9), (8, 9), (9, 9), (9, 9)]


class TestCUHK03Classic:
    @pytest.fixture
    def root(self, tmp_path) -> Path:
        """Pair 1 has three people and pair 2 two; cells are empty, axes as MATLAB writes them."""
        h5py = pytest.importorskip("h5py")
        with h5py.File(tmp_path / "cuhk-03.mat", "w") as file:
            hidden = file.create_group("#refs#")

            def cell(name, values):
                hidden[name] = values
                return hidden[name].ref

            pairs = []
            for pair, people in enumerate((3, 2), 1):
                images = np.empty((10, people), dtype=h5py.ref_dtype)
                for person in range(people):
                    for n in range(10):
                        pixels = np.zeros((3, 4, 6), np.uint8)  # (colour, width, height)
                        pixels[:, 0, 5] = 10 * pair, person, n
                        empty = n > 5 + person  # MATLAB holds the shape of an empty array
                        value = np.zeros(2, np.uint64) if empty else pixels
                        images[n, person] = cell(f"{pair}{person}{n}", value)
                hidden.create_dataset(f"p{pair}", data=images, dtype=h5py.ref_dtype)
                pairs.append(hidden[f"p{pair}"].ref)
            for boxes in ("detected", "labeled"):
                file.create_dataset(boxes, data=np.array([pairs], dtype=h5py.ref_dtype))
            tests = [
                cell(f"t{n}", np.array([[1.0, 2.0], [1 + n % 3, 2.0]])) for n in range(20)
            ]  # person n % 3 + 1 of pair 1 and person 2 of pair 2
            file.create_dataset("testsets", data=np.array([tests], dtype=h5py.ref_dtype))
        return tmp_path

    def test_writes_the_images_once(self, root):
        dataset = CUHK03Classic(root, split=1)
        dataset.prepare()
        splits = dataset.load()
        assert len({(person, camera) for person, camera in ids(splits.train)}) == 6
        assert splits.query == splits.gallery
        names = [Path(sample.path).name[:7] for sample in splits.query]
        assert names == ["1_002_1"] * 5 + ["1_002_2"] * 2 + ["2_002_1"] * 5 + ["2_002_2"] * 2
        assert ids(splits.query) == [(1, 0)] * 5 + [(1, 1)] * 2 + [(4, 0)] * 5 + [(4, 1)] * 2
        with Image.open(root / "classic_detected/2_002_2_07.png") as image:
            assert image.size == (4, 6)
            assert image.getpixel((0, 5)) == (20, 1, 6)
        (root / "cuhk-03.mat").unlink()  # no longer needed
        dataset.prepare()
        assert dataset.load() == splits
        assert dataset.variant == "split 1 of 20, counted from 0"

    def test_other_file(self, root):
        h5py = pytest.importorskip("h5py")
        with h5py.File(root / "cuhk-03.mat", "a") as file:
            del file["testsets"]
        with pytest.raises(ValueError, match=r"cuhk-03.mat: is not that of CUHK03"):
            CUHK03Classic(root, boxes="labeled").prepare()
        assert not (root / "classic_labeled").exists()

    @pytest.mark.parametrize("content", [b"", b"<!DOCTYPE html>", b"MATLAB 5.0 MAT-file" * 99])
    def test_no_hdf5(self, tmp_path, content):
        pytest.importorskip("h5py")
        (tmp_path / "cuhk-03.mat").write_bytes(content)
        with pytest.raises(ValueError, match=r"/cuhk-03.mat: is not that of CUHK03, of MATLAB 7.3"):
            CUHK03Classic(tmp_path).prepare()
        assert [path.name for path in tmp_path.iterdir()] == ["cuhk-03.mat"]

    def test_without_h5py(self, tmp_path, monkeypatch):
        monkeypatch.setitem(sys.modules, "h5py", None)
        (tmp_path / "cuhk-03.mat").touch()
        with pytest.raises(ModuleNotFoundError, match="read by h5py: pip install h5py"):
            CUHK03Classic(tmp_path).prepare()

    def test_bad_options(self, tmp_path):
        with pytest.raises(FileNotFoundError, match=r"cuhk-03.mat: no such file; CUHK03 has"):
            CUHK03Classic(tmp_path).prepare()
        with pytest.raises(ValueError, match="boxes='drawn': CUHK03 has 'detected' and 'labeled'"):
            CUHK03Classic(tmp_path, boxes="drawn")

    def test_once_written_h5py_is_not_needed(self, tmp_path):
        names = ["1_001_1_01.png", "1_001_2_06.png", "1_002_1_01.png"]
        plant(tmp_path, {"classic_labeled": names})
        (tmp_path / "classic_labeled/testsets.json").write_text(json.dumps([[[1, 1]]] * 20))
        splits = CUHK03Classic(tmp_path, boxes="labeled").load()
        assert ids(splits.train) == [(1, 0)]
        assert ids(splits.query) == [(0, 0), (0, 1)]
