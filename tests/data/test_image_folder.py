from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pplr_lightning.data import ImageFolder

from .trees import touch


class TestImageFolder:
    def test_plain_folder_needs_no_names(self, tmp_path):
        touch(tmp_path / "b/x y.png", tmp_path / "a/ü/1.JPEG", tmp_path / "z.webp")
        splits = ImageFolder(tmp_path).load()
        assert [Path(s.path).relative_to(tmp_path).as_posix() for s in splits.train] == [
            "a/ü/1.JPEG",
            "b/x y.png",
            "z.webp",
        ]
        assert {sample[1:3] for sample in splits.train} == {(-1, -1)}
        assert splits.query == []
        assert splits.gallery == []

    def test_pattern_gives_cameras_and_persons(self, tmp_path):
        touch(tmp_path / "north/ann_1.png", tmp_path / "south/bob_1.png")
        splits = ImageFolder(tmp_path, pattern=r"(?P<camera>\w+)/(?P<person>\w+)_").load()
        assert [sample[1:3] for sample in splits.train] == [(0, 0), (1, 1)]

    def test_tracklets(self, tmp_path):
        touch(*(tmp_path / f"i/c{camera}/t{tracklet}_{n}.png" for camera, tracklet, n in (
            (1, 5, 0), (1, 5, 1), (1, "", 0), (2, 5, 0),
        )))  # fmt: skip
        train = (
            ImageFolder(tmp_path / "i", pattern=r"c(?P<camera>\d)/t(?P<tracklet>\d*)_").load().train
        )
        assert [sample[1:5] for sample in train] == [
            (-1, 1, 5, -1), (-1, 1, 5, -1), (-1, 1, -1, -1), (-1, 2, 5, -1),
        ]  # fmt: skip
        table = tmp_path / "tracks.csv"
        rows = (
            f"{Path(one.path).relative_to(tmp_path / 'i')},{n // 2}.0"
            for n, one in enumerate(train)
        )
        table.write_text("\n".join(["path,tracklet_id", *rows]))
        train = ImageFolder(tmp_path / "i", table=table).load().train
        assert [sample[1:4] for sample in train] == [(-1, -1, n // 2) for n in range(4)]

    def test_frames(self, tmp_path):
        touch(tmp_path / "i/c1/0007_0.png", tmp_path / "i/c1/0012_0.png")
        pattern = r"c(?P<camera>\d)/(?P<frame>\d+)_"
        train = ImageFolder(tmp_path / "i", pattern=pattern).load().train
        assert [sample[1:5] for sample in train] == [(-1, 1, -1, 7), (-1, 1, -1, 12)]
        table = tmp_path / "frames.csv"
        table.write_text("path,frame\nc1/0007_0.png,3.0\nc1/0012_0.png,\n")
        train = ImageFolder(tmp_path / "i", table=table).load().train
        assert [sample.frame for sample in train] == [3, -1]
        for frame in ("-2", "3.5", "late"):
            table.write_text(f"path,frame\nc1/0007_0.png,3\nc1/0012_0.png,{frame}\n")
            with pytest.raises(ValueError, match=rf"0012_0.png: the frame '{frame}' is no whole"):
                ImageFolder(tmp_path / "i", table=table).load()

    def test_numeric_ids_stay(self, tmp_path):
        touch(tmp_path / "cam12/1.png", tmp_path / "cam3/1.png")
        splits = ImageFolder(tmp_path, pattern=r"cam(?P<camera>\d+)/").load()
        assert [sample.camera_id for sample in splits.train] == [12, 3]

    def test_only_numbers(self, tmp_path):
        touch(tmp_path / "t/cam12/1.png", tmp_path / "t/cam3/2.png", tmp_path / "t/cam/3.png")
        pattern = r"cam(?P<camera>\d*)/"
        splits = ImageFolder(tmp_path / "t", pattern=pattern, only_numbers=True).load()
        assert [sample.camera_id for sample in splits.train] == [-1, 12, 3]

    @pytest.mark.parametrize(
        ("row", "message"),
        [
            ("7,north", r"images/2.png: the camera 'north' is no number: ids must mean the same"),
            (
                "ann,4",
                r"images/2.png: the person 'ann' is no number.* have the pattern or the table",
            ),
            (f"7,{10**18}", f"the camera '{10**18}' is no number"),  # beyond 64 bits
        ],
    )
    def test_other_ids_where_numbers_are_wanted(self, tmp_path, row, message):
        touch(tmp_path / "images/1.png", tmp_path / "images/2.png")
        table = tmp_path / "ids.csv"
        table.write_text(f"path,person_id,camera_id\n1.png,7,4\n2.png,{row}\n")
        ImageFolder(tmp_path / "images", table=table).load()
        with pytest.raises(ValueError, match=message):
            ImageFolder(tmp_path / "images", table=table, only_numbers=True).load()

    def test_csv(self, tmp_path):
        touch(tmp_path / "images/1.png", tmp_path / "images/2.png")
        table = tmp_path / "cameras.csv"
        table.write_text("path,camera_id\n1.png,4\n2.png,5\n")
        splits = ImageFolder(tmp_path / "images", table=table).load()
        assert [sample[1:3] for sample in splits.train] == [(-1, 4), (-1, 5)]

    def test_parquet(self, tmp_path):
        touch(tmp_path / "images/a/1.png", tmp_path / "images/a/2.png")
        table = tmp_path / "crops.parquet"
        columns = {"path": ["a/1.png", "a/2.png"], "camera_id": ["4", None], "frame": [7.0, None]}
        pq.write_table(pa.table({**columns, "left": [1.5, 2.5]}), table)
        splits = ImageFolder(tmp_path / "images", table=table).load()
        assert [sample[1:5] for sample in splits.train] == [(-1, 4, -1, 7), (-1, -1, -1, -1)]
        pq.write_table(pa.table({**columns, "path": ["a/1.png"] * 2}), table)
        with pytest.raises(ValueError, match=r"crops.parquet, row 2: a second row for a/1.png"):
            ImageFolder(tmp_path / "images", table=table).load()
        pq.write_table(pa.table({"path": ["a/1.png"]}), table)
        with pytest.raises(ValueError, match=r"crops.parquet: needs the column path and one of"):
            ImageFolder(tmp_path / "images", table=table).load()
        table.write_text("path,camera_id")
        with pytest.raises(ValueError, match=r"crops.parquet: no Parquet file"):
            ImageFolder(tmp_path / "images", table=table).load()

    def test_csv_without_a_row(self, tmp_path):
        touch(tmp_path / "images/1.png", tmp_path / "images/2.png")
        table = tmp_path / "cameras.csv"
        table.write_text("path,camera_id\n1.png,4\n")
        with pytest.raises(ValueError, match=r"cameras.csv: no row for the image 2.png: the col"):
            ImageFolder(tmp_path / "images", table=table).load()

    def test_csv_without_columns(self, tmp_path):
        touch(tmp_path / "images/1.png")
        table = tmp_path / "cameras.csv"
        table.write_text("file,cam\n1.png,4\n")
        with pytest.raises(ValueError, match="needs the column path"):
            ImageFolder(tmp_path / "images", table=table).load()

    @pytest.mark.parametrize(
        "content",
        [
            b"\xef\xbb\xbfpath,camera_id\n1.png,4\n2.png,5\n",
            b"path,camera_id\r\n1.png,4.0\r\n2.png,5.00\r\n",
            b'camera_id, path\n4 , ./1.png\n 5,"2.png"\n',
        ],
    )
    def test_csv_as_spreadsheets_and_pandas_write_it(self, tmp_path, content):
        touch(tmp_path / "images/1.png", tmp_path / "images/2.png")
        (tmp_path / "ids.csv").write_bytes(content)
        folder = ImageFolder(tmp_path / "images", table=tmp_path / "ids.csv", only_numbers=True)
        assert [sample.camera_id for sample in folder.load().train] == [4, 5]

    @pytest.mark.parametrize(
        ("content", "message"),
        [
            ("path,camera_id\n1.png,ä\n".encode("latin-1"), r"ids.csv: is no UTF-8 .*; save it as"),
            ("path,camera_id\n1.png,4\n".encode("utf-16"), r"ids.csv: is no UTF-8 .*; save it as"),
            (b"path,camera_id\n1.png,4\n2.png,5\n./1.png,4\n", "line 4: a second row for 1.png"),
            (b"path,camera_id\n1.png,4\n2.png,5,6\n", "line 3: not a value for each column"),
            (b"path,camera_id\n1.png,4\n2.png\n", "line 3: not a value for each column"),
            (b"path,camera_id,camera_id\n1.png,4,5\n2.png,5,6\n", "has a column twice"),
            (
                b"path,camera_id\nimages/1.png,4\n",
                r"image 1.png, but one for images/1.png: the col",
            ),
            (
                b"path,camera_id\nC:\\i\\1.png,4\n",
                r"image 1.png, but one for C:\\i\\1.png: the col",
            ),
        ],
    )
    def test_bad_csv(self, tmp_path, content, message):
        touch(tmp_path / "images/1.png", tmp_path / "images/2.png")
        (tmp_path / "ids.csv").write_bytes(content)
        with pytest.raises(ValueError, match=message):
            ImageFolder(tmp_path / "images", table=tmp_path / "ids.csv").load()

    def test_csv_relative_to_a_folder_within(self, tmp_path):
        touch(tmp_path / "images/a/1.png")
        (tmp_path / "ids.csv").write_text("path,camera_id\n1.png,4\n")
        with pytest.raises(
            ValueError, match=r"for the image a/1.png, but one for 1.png: the col.*s"
        ):
            ImageFolder(tmp_path / "images", table=tmp_path / "ids.csv").load()

    def test_csv_with_rows_of_no_image(self, tmp_path):
        touch(tmp_path / "images/1.png")
        (tmp_path / "ids.csv").write_text("path,camera_id\n3.png,4\n1.png,4\n2.png,5\n")
        with pytest.warns(UserWarning, match=r"ids.csv: 2 rows are of no image here.* of 2.png"):
            ImageFolder(tmp_path / "images", table=tmp_path / "ids.csv").load()

    def test_a_test_image_linked_into_training(self, tmp_path):
        touch(tmp_path / "t/1.png", tmp_path / "q/7_a.png", tmp_path / "g/7_b.png")
        (tmp_path / "t/link").symlink_to(tmp_path / "g")
        folders = {"query": tmp_path / "q", "gallery": tmp_path / "g"}
        with pytest.raises(ValueError, match=r"link/7_b.png is a training image and, by a link, a"):
            ImageFolder(tmp_path / "t", pattern=r"(?P<person>\d)", **folders).load()

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
            ({"pattern": "abc"}, "has none of the groups"),
            ({"pattern": "(?P<camera>1)", "table": "x.csv"}, "give one of them"),
        ],
    )
    def test_bad_options(self, options, message):
        with pytest.raises(ValueError, match=message):
            ImageFolder("images", **options)

    def test_name_outside_the_pattern(self, tmp_path):
        touch(tmp_path / "1.png")
        with pytest.raises(ValueError, match=r"1.png: does not match the pattern"):
            ImageFolder(tmp_path, pattern=r"cam(?P<camera>\d+)/").load()
