from __future__ import annotations

from pathlib import Path

import pytest

from pplr_lightning.data.files import find_images

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

    @pytest.mark.parametrize("folder", [".ipynb_checkpoints", "a/.cache/b"])
    def test_nor_do_hidden_folders_hold_any(self, tmp_path, folder):
        touch(tmp_path / ".set/1.jpg", tmp_path / ".set" / folder / "2.jpg")
        assert find_images(tmp_path / ".set") == [tmp_path / ".set/1.jpg"]

    def test_links_are_followed(self, tmp_path):
        touch(tmp_path / "real/a/1.jpg", tmp_path / "set/2.jpg")
        (tmp_path / "set/link").symlink_to(tmp_path / "real")
        (tmp_path / "only").symlink_to(tmp_path / "set")
        for root in (tmp_path / "set", tmp_path / "only"):
            assert find_images(root) == [root / "2.jpg", root / "link/a/1.jpg"]

    def test_a_folder_is_read_once(self, tmp_path):
        touch(tmp_path / "b/1.jpg", tmp_path / "c/2.jpg")
        (tmp_path / "a").symlink_to(tmp_path / "b")
        (tmp_path / "c/loop").symlink_to(tmp_path)
        with pytest.warns(UserWarning, match="read already: it is left out") as told:
            assert find_images(tmp_path) == [tmp_path / "b/1.jpg", tmp_path / "c/2.jpg"]
        assert [str(one.message).split(" leads to ")[0] for one in told] == [
            str(tmp_path / "c/loop"),
            str(tmp_path / "a"),
        ]

    def test_names_a_missing_folder(self):
        with pytest.raises(FileNotFoundError, match="nowhere: no such folder"):
            find_images(Path("nowhere"))

    def test_names_an_empty_folder(self, tmp_path):
        with pytest.raises(ValueError, match="the folder holds no image"):
            find_images(tmp_path)
