from __future__ import annotations

from pathlib import Path

import pytest

from pplr_lightning.data import MSMT17

from .trees import as_msmt17, plant, touch

pytestmark = pytest.mark.filterwarnings("ignore:.*as published has")

TRAIN = "0000/0000_000_01_0303morning_0015_0.jpg"
OTHER = "0001/0001_003_15_0113noon_1439_0_ex.JPG"
LISTS = {"train": [TRAIN], "val": [OTHER], "query": [TRAIN], "gallery": [TRAIN, OTHER]}


def plant_msmt17(root: Path, train: str = "train", test: str = "test") -> Path:
    touch(*(root / folder / name for folder in (train, test) for name in (TRAIN, OTHER)))
    for split, names in LISTS.items():
        lines = [f"{name} {int(name[:4])}\n" for name in names]
        (root / f"list_{split}.txt").write_text("".join(lines))
    return root


@pytest.fixture
def root(tmp_path) -> Path:
    return plant_msmt17(tmp_path / "ein Ort für 人/MSMT17_V1")


def test_v1(root):
    splits = MSMT17(root).load()
    assert [sample[1:3] for sample in splits.train] == [(0, 1), (1, 15)]  # train and val
    assert [sample[1:3] for sample in splits.query] == [(0, 1)]
    assert [sample[1:3] for sample in splits.gallery] == [(0, 1), (1, 15)]
    assert splits.train[0].path == str(root / "train" / TRAIN)
    assert splits.query[0].path == str(root / "test" / TRAIN)


def test_v2(tmp_path):
    splits = MSMT17(plant_msmt17(tmp_path, "mask_train_v2", "mask_test_v2")).load()
    assert [len(split) for split in splits] == [2, 1, 2]
    assert splits.train[0].path == str(tmp_path / "mask_train_v2" / TRAIN)


def test_third_layout(tmp_path, caplog):
    """That of Market-1501; persons may be numbered from the same number in training and test."""
    caplog.set_level("INFO", logger="lightning.pytorch")
    folders = {"bounding_box_train": ["0001_c1_0001.jpg"], "query": ["0001_c15_0001.jpg"]}
    folders["bounding_box_test"] = ["0001_c2_0001.jpg", "0002_c3_0002.jpg"]
    dataset = MSMT17(plant(tmp_path, folders))
    splits = dataset.load()
    assert [sample[1:3] for sample in splits.query + splits.gallery] == [(1, 15), (1, 2), (2, 3)]
    assert dataset.variant == "MSMT17 in the Market-1501 layout, V1 or V2"
    assert "the folder does not say which" in caplog.text


@pytest.mark.parametrize(
    ("folders", "variant"),
    [(("train", "test"), "V1"), (("mask_train_v2", "mask_test_v2"), "V2, faces blurred")],
)
def test_version_is_said_beside_results(tmp_path, folders, variant):
    dataset = MSMT17(plant_msmt17(tmp_path, *folders))
    dataset.load()
    assert dataset.variant == f"MSMT17 {variant}"


def test_v1_where_both_are_there(root):
    plant_msmt17(root, "mask_train_v2", "mask_test_v2")
    assert MSMT17(root).load().train[0].path == str(root / "train" / TRAIN)


def test_other_counts_than_published(root):
    with pytest.warns(UserWarning, match=r"has 32,621 \+ 11,659 \+ 82,161"):
        MSMT17(root).load()


def test_list_edited_elsewhere(root):
    name = "0002 b/0002_000_03_0302noon_0001_0.jpg"
    touch(root / "test" / name)
    (root / "list_query.txt").write_bytes(f"\ufeff{name} 2\r\n\r\n".encode())
    query = MSMT17(root).load().query
    assert query == [(str(root / "test" / name), 2, 3, -1, -1, -1)]


def test_list_of_another_encoding(root):
    (root / "list_query.txt").write_text(f"{TRAIN} 0\n", encoding="utf-16")
    with pytest.raises(ValueError, match=r"list_query.txt: is no UTF-8 .*; save it as UTF-8"):
        MSMT17(root).load()


def test_image_listed_twice(root):
    (root / "list_train.txt").write_text(f"{TRAIN} 0\n{TRAIN} 1\n")
    with pytest.raises(ValueError, match=r"list_train.txt: lists 1 images twice"):
        MSMT17(root).load()


def test_missing_test_folder_of_v2(tmp_path):
    (tmp_path / "mask_train_v2").mkdir()
    with pytest.raises(FileNotFoundError, match="mask_test_v2: no such folder"):
        MSMT17(tmp_path).load()


def test_missing_list(root):
    (root / "list_val.txt").unlink()
    with pytest.raises(FileNotFoundError, match=r"list_val.txt: no such file; .*https://"):
        MSMT17(root).load()


def test_missing_images(root):
    (root / "test" / OTHER).unlink()
    message = rf"list_gallery.txt: 1 of 2 images in the list are not there.*{OTHER}; unpack"
    with pytest.raises(FileNotFoundError, match=message):
        MSMT17(root).load()


def test_empty_list(root):
    (root / "list_query.txt").write_text("\n")
    with pytest.raises(ValueError, match=r"list_query.txt: the list is empty"):
        MSMT17(root).load()


@pytest.mark.parametrize(
    "line", [TRAIN, f"{TRAIN} x", "0001_c1s1_001051_00.jpg 1", f"../test/{TRAIN} 0", f"/{TRAIN} 0"]
)
def test_line_of_another_form(root, line):
    (root / "list_query.txt").write_text(f"{TRAIN} 0\n{line}\n")
    with pytest.raises(ValueError, match=r"list_query.txt, line 2: .* is not of the form"):
        MSMT17(root).load()


def test_the_drawn_set_in_its_layout(drawn, tmp_path):
    splits = MSMT17(as_msmt17(drawn, tmp_path)).load()
    assert len(splits.train) == len(list((drawn / "bounding_box_train").iterdir()))
    assert all(1 <= sample.camera_id <= 4 for split in splits for sample in split)
