from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from pplr_lightning.data.datasets import ImageFolder, Market1501, Sample, find_images


def touch(*paths: Path) -> None:
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 16)).save(path)


@pytest.fixture
def market(tmp_path: Path) -> Path:
    touch(
        tmp_path / "bounding_box_train/0002_c1s1_000451_03.jpg",
        tmp_path / "bounding_box_train/0007_c3s3_077419_03.JPG",
        tmp_path / "bounding_box_train/-1_c3s3_077419_03.jpg",
        tmp_path / "query/0001_c1s1_001051_00.jpg",
        tmp_path / "bounding_box_test/-1_c2s1_000401_00.jpg",
        tmp_path / "bounding_box_test/0000_c6s3_000000_00.jpg",
        tmp_path / "bounding_box_test/0001_c2s1_001976_01.jpg",
    )
    (tmp_path / "bounding_box_test/Thumbs.db").write_bytes(b"no image")
    return tmp_path


class TestMarket1501:
    def test_reads_ids_from_names(self, market):
        splits = Market1501(market).load()
        assert [sample[1:] for sample in splits.train] == [(2, 1), (7, 3)]
        assert [sample[1:] for sample in splits.query] == [(1, 1)]
        assert [sample[1:] for sample in splits.gallery] == [(-1, 2), (0, 6), (1, 2)]

    def test_constructor_touches_no_file(self):
        Market1501("/nowhere/at/all")

    def test_missing_root(self):
        with pytest.raises(FileNotFoundError, match=r"nowhere.bounding_box_train.*root"):
            Market1501("nowhere").load()

    def test_missing_split(self, market):
        (market / "query/0001_c1s1_001051_00.jpg").unlink()
        (market / "query").rmdir()
        with pytest.raises(FileNotFoundError, match="query: no such folder"):
            Market1501(market).load()

    def test_empty_split(self, market):
        (market / "query/0001_c1s1_001051_00.jpg").unlink()
        with pytest.raises(ValueError, match="query: the folder holds no image"):
            Market1501(market).load()

    def test_name_that_does_not_parse(self, market):
        touch(market / "query/holiday.jpg")
        with pytest.raises(ValueError, match=r"holiday.jpg: the name is not of the form"):
            Market1501(market).load()


class TestImageFolder:
    def test_plain_folder_needs_no_names(self, tmp_path):
        touch(tmp_path / "b/x y.png", tmp_path / "a/ü/1.JPEG", tmp_path / "z.webp")
        splits = ImageFolder(tmp_path).load()
        assert [Path(s.path).relative_to(tmp_path).as_posix() for s in splits.train] == [
            "a/ü/1.JPEG",
            "b/x y.png",
            "z.webp",
        ]
        assert {sample[1:] for sample in splits.train} == {(-1, -1)}
        assert splits.query == []
        assert splits.gallery == []

    def test_pattern_gives_cameras_and_persons(self, tmp_path):
        touch(tmp_path / "north/ann_1.png", tmp_path / "south/bob_1.png")
        splits = ImageFolder(tmp_path, pattern=r"(?P<camera>\w+)/(?P<person>\w+)_").load()
        assert [sample[1:] for sample in splits.train] == [(0, 0), (1, 1)]

    def test_numeric_ids_stay(self, tmp_path):
        touch(tmp_path / "cam12/1.png", tmp_path / "cam3/1.png")
        splits = ImageFolder(tmp_path, pattern=r"cam(?P<camera>\d+)/").load()
        assert [sample.camera_id for sample in splits.train] == [12, 3]

    def test_csv(self, tmp_path):
        touch(tmp_path / "images/1.png", tmp_path / "images/2.png")
        table = tmp_path / "cameras.csv"
        table.write_text("path,camera_id\n1.png,4\n2.png,5\n")
        splits = ImageFolder(tmp_path / "images", csv=table).load()
        assert [sample[1:] for sample in splits.train] == [(-1, 4), (-1, 5)]

    def test_csv_without_a_row(self, tmp_path):
        touch(tmp_path / "images/1.png", tmp_path / "images/2.png")
        table = tmp_path / "cameras.csv"
        table.write_text("path,camera_id\n1.png,4\n")
        with pytest.raises(ValueError, match=r"cameras.csv: no row for the image 2.png"):
            ImageFolder(tmp_path / "images", csv=table).load()

    def test_csv_without_columns(self, tmp_path):
        touch(tmp_path / "images/1.png")
        table = tmp_path / "cameras.csv"
        table.write_text("file,cam\n1.png,4\n")
        with pytest.raises(ValueError, match="needs the column path"):
            ImageFolder(tmp_path / "images", csv=table).load()

    def test_query_and_gallery(self, tmp_path):
        touch(tmp_path / "t/1.png", tmp_path / "q/7_a.png", tmp_path / "g/7_b.png")
        folder = ImageFolder(
            tmp_path / "t",
            query=tmp_path / "q",
            gallery=tmp_path / "g",
            pattern=r"^((?P<person>\d+)_)?",
        )
        splits = folder.load()
        assert splits.query[0].person_id == splits.gallery[0].person_id == 7
        # Images of unknown cameras are not taken for images of one camera.
        assert splits.query[0].camera_id != splits.gallery[0].camera_id

    def test_one_folder_for_query_and_gallery(self, tmp_path):
        touch(tmp_path / "t/1.png", tmp_path / "q/7_a.png", tmp_path / "q/7_b.png")
        test = tmp_path / "q"
        splits = ImageFolder(
            tmp_path / "t", query=test, gallery=test, pattern=r"(?P<person>\d)"
        ).load()
        assert [len(split) for split in splits] == [1, 2, 2]

    def test_test_images_inside_the_training_folder(self, tmp_path):
        with pytest.raises(ValueError, match="query lies inside the training folder"):
            ImageFolder(tmp_path, query=tmp_path / "query", pattern=r"(?P<person>\d)")

    def test_query_needs_person_ids(self, tmp_path):
        touch(tmp_path / "t/1.png", tmp_path / "q/1.png")
        with pytest.raises(ValueError, match="query images need person ids"):
            ImageFolder(tmp_path / "t", query=tmp_path / "q").load()

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"pattern": "("}, "no regular expression"),
            ({"pattern": "abc"}, "has no group"),
            ({"pattern": "(?P<camera>1)", "csv": "x.csv"}, "give one of them"),
        ],
    )
    def test_bad_options(self, options, message):
        with pytest.raises(ValueError, match=message):
            ImageFolder("images", **options)

    def test_name_outside_the_pattern(self, tmp_path):
        touch(tmp_path / "1.png")
        with pytest.raises(ValueError, match=r"1.png: does not match the pattern"):
            ImageFolder(tmp_path, pattern=r"cam(?P<camera>\d+)/").load()


def test_find_images_names_a_missing_folder():
    with pytest.raises(FileNotFoundError, match="nowhere: no such folder"):
        find_images(Path("nowhere"))


def test_sample_is_plain():
    assert Sample("a.png", 1, 2) == ("a.png", 1, 2)
