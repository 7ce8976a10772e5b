from __future__ import annotations

from pathlib import Path

import pytest

from pplr_lightning.data.datasets import Sample, Splits, find_images

from .trees import touch


class TestFindImages:
    def test_any_depth_ending_and_name(self, tmp_path):
        names = ["1.JPG", "a b/ü/2.Jpeg", "z.webp", "人/3.png"]
        touch(*(tmp_path / name for name in names))
        (tmp_path / "Thumbs.db").write_bytes(b"no image")
        found = [path.relative_to(tmp_path).as_posix() for path in find_images(tmp_path)]
        assert found == names

    def test_hidden_files_are_no_images(self, tmp_path):
        touch(tmp_path / "1.jpg", tmp_path / "._1.jpg")
        assert find_images(tmp_path) == [tmp_path / "1.jpg"]

    def test_names_a_missing_folder(self):
        with pytest.raises(FileNotFoundError, match="nowhere: no such folder"):
            find_images(Path("nowhere"))

    def test_names_an_empty_folder(self, tmp_path):
        with pytest.raises(ValueError, match="the folder holds no image"):
            find_images(tmp_path)


class TestDescribe:
    def test_counts(self):
        train = [Sample("1.png", 7, 0), Sample("2.png", 7, 1), Sample("3.png", 9, 1)]
        splits = Splits(train, train[:1], [*train, Sample("4.png", -1, 0)])
        assert splits.describe() == (
            "train: 3 images, 2 identities, 2 cameras; query: 1 images, 1 identities, 1 cameras; "
            "gallery: 4 images, 2 identities, 2 cameras"
        )

    def test_unknown_ids(self):
        splits = Splits([Sample("1.png", -1, -1)] * 1200, [], [])
        assert splits.describe() == "train: 1,200 images, unknown identities, unknown cameras"


def test_sample_is_plain():
    assert Sample("a.png", 1, 2) == ("a.png", 1, 2)
