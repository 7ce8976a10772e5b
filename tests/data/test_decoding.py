from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from pplr_lightning.data import ImageFolder, PPLRDataModule
from pplr_lightning.data.cache import Node
from pplr_lightning.data.decoding import decode_all

from ..processes import launch


def test_cut_off_files_are_found(tmp_path):
    good = tmp_path / "good.png"
    Image.new("RGB", (8, 16)).save(good)
    for name in ("a.png", "b.jpg"):
        path = tmp_path / name
        Image.effect_noise((64, 128), 50).convert("RGB").save(path)
        path.write_bytes(path.read_bytes()[:-500])
        bad = decode_all([str(good), str(path)], None, node=Node(), world_size=1)
        assert list(bad) == [str(path)]
        assert name in bad[str(path)]


def test_a_file_that_is_gone_is_no_bad_image(tmp_path):
    gone = str(tmp_path / "gone.png")
    with pytest.raises(FileNotFoundError, match=f"No such file or directory: '{gone}'"):
        decode_all([gone], None, node=Node(), world_size=1)


def test_all_ranks_hear_of_a_file_that_is_gone(tmp_path):
    paths = [str(tmp_path / f"{number}.png") for number in range(2)]
    Image.new("RGB", (8, 16)).save(paths[0])  # the second rank's is not there
    for found in launch(
        lambda rank: decode_all(paths, None, node=Node(rank), world_size=2), 2, tmp_path, timeout=30
    ):
        assert found.startswith("FileNotFoundError: [Errno 2]")


def test_all_ranks_hear_of_any_other_error(tmp_path):
    """Such as want of memory, or a cache that an image does not fit."""
    paths = [str(tmp_path / f"{number}.png") for number in range(2)]
    for path in paths:
        Image.new("RGB", (8, 16)).save(path)

    class Full:
        def put(self, path, image):
            if path == paths[1]:
                raise MemoryError("no room")

    def work(rank):
        return decode_all(paths, Full(), node=Node(rank, rank, 2), world_size=2)

    assert launch(work, 2, tmp_path, timeout=30) == ["MemoryError: no room"] * 2


class TestBadImages:
    @pytest.fixture
    def folder(self, tmp_path):
        Image.new("RGB", (8, 16)).save(tmp_path / "good.png")
        (tmp_path / "bad.png").write_bytes(b"cut")
        (tmp_path / "worse.png").write_bytes(b"off")
        return ImageFolder(tmp_path)

    def test_raise_names_one_and_counts_the_rest(self, folder):
        with pytest.raises(ValueError, match=r"bad.png: cannot be read .*\(1 more like it\)"):
            PPLRDataModule(folder).setup("fit")

    def test_skip_warns_and_goes_on(self, folder):
        data = PPLRDataModule(folder, bad_images="skip")
        with pytest.warns(UserWarning, match="2 unreadable images"):
            data.setup("fit")
        assert [Path(sample.path).name for sample in data.train_samples] == ["good.png"]
