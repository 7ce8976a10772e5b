from __future__ import annotations

from pathlib import Path

import pytest

from pplr_lightning.data import (
    CUHK03,
    DukeMTMCreID,
    Market1501,
    MarketLayout,
    OccludedDuke,
    PersonX,
    VeRi776,
)
from pplr_lightning.data.datasets import frame_numbers, tracklet_numbers

from .trees import ids, plant, touch

pytestmark = pytest.mark.filterwarnings("ignore:.*as published has", "ignore:.*taken down")


@pytest.fixture
def market(tmp_path: Path) -> Path:
    root = plant(
        tmp_path / "Straße 人/Market 1501",
        {
            "bounding_box_train": [
                "0002_c1s1_000451_03.jpg",
                "0007_c3s3_077419_03.JPG",
                "-1_c3s3_077419_03.jpg",
            ],
            "query": ["0001_c1s1_001051_00.jpg"],
            "bounding_box_test": [
                "-1_c2s1_000401_00.jpg",
                "0000_c6s3_000000_00.jpg",
                "0001_c2s1_001976_01.jpg",
            ],
            "gt_bbox": ["0001_c1s1_001051_00.jpg"],  # comes with the set, belongs to no split
        },
    )
    (root / "bounding_box_test/Thumbs.db").write_bytes(b"no image")
    return root


class TestMarket1501:
    def test_reads_ids_from_names(self, market):
        splits = Market1501(market).load()
        assert ids(splits.train) == [(2, 1), (7, 3)]  # without junk
        assert ids(splits.query) == [(1, 1)]
        assert ids(splits.gallery) == [(-1, 2), (0, 6), (1, 2)]
        assert all(Path(sample.path).is_file() for split in splits for sample in split)

    def test_tracklets_from_the_names(self, market):
        names = ["0002_c1s1_000476_01.jpg", "0002_c1s2_000476_01.jpg", "0007_c1s1_000476_01.jpg"]
        plant(market, {"bounding_box_train": names})
        assert {sample.tracklet_id for sample in Market1501(market).load().train} == {-1}
        splits = Market1501(market, tracklets="names").load()
        assert [Path(sample.path).name[:9] for sample in splits.train] == [
            "0002_c1s1", "0002_c1s1", "0002_c1s2", "0007_c1s1", "0007_c3s3"
        ]  # fmt: skip
        assert tracklet_numbers(splits.train) == [0, 0, 1, 2, 3]
        assert frame_numbers(splits.train) == [0, 1, 2, 1, 3]  # those of two sequences differ
        assert {sample.frame for sample in Market1501(market).load().train} == {-1}
        assert "5 images, 2 identities, 2 cameras, 4 tracklets; query" in splits.describe()
        assert {sample.tracklet_id for sample in splits.query + splits.gallery} == {-1}

    def test_tracklets_that_the_names_do_not_say(self, market):
        plant(market, {"bounding_box_train": ["0002_c2_f0046182.jpg"]})
        with pytest.raises(
            ValueError, match=r"0002_c2_f0046182.jpg: tracklets=names, but the name"
        ):
            Market1501(market, tracklets="names").load()
        with pytest.raises(ValueError, match="tracklets='frames': choose 'names', or leave it out"):
            Market1501(market, tracklets="frames")

    def test_distractors(self, market):
        with pytest.raises(FileNotFoundError, match="images: no such folder; Market-1501 has 500,"):
            Market1501(market, distractors=True).load()
        plant(market, {"images": ["-1_c3s1_000001_01.jpg", "00000002.jpg"]})
        dataset = Market1501(market, distractors=True)
        assert ids(dataset.load().gallery)[-2:] == [(0, 3), (0, -1)]
        assert dataset.variant == "gallery with 2 distractors"
        assert len(Market1501(market).load().gallery) == 3

    def test_other_counts_than_published(self, market):
        with pytest.warns(UserWarning, match=r"has 12,936 \+ 3,368 \+ 19,732"):
            Market1501(market).load()

    def test_missing_split(self, market):
        (market / "query/0001_c1s1_001051_00.jpg").unlink()
        (market / "query").rmdir()
        with pytest.raises(FileNotFoundError, match=r"query: no such folder.*Market-1501"):
            Market1501(market).load()

    def test_empty_split(self, market):
        (market / "query/0001_c1s1_001051_00.jpg").unlink()
        with pytest.raises(ValueError, match="query: the folder holds no image"):
            Market1501(market).load()

    def test_name_that_does_not_parse(self, market):
        touch(market / "query/holiday.jpg")
        with pytest.raises(ValueError, match=r"holiday.jpg: the name is not of the form"):
            Market1501(market).load()


@pytest.mark.parametrize("split", ["query", "bounding_box_test"])
def test_identities_of_training_among_those_of_test(market, split):
    touch(market / split / "0007_c1s1_000001_00.jpg", market / split / "0007_c2s1_000001_00.jpg")
    expected = (
        r"Market 1501: 1 identities are in bounding_box_train and in query or bounding_box_test, "
        r"the first that of .*bounding_box_train/0007_c3s3_077419_03.JPG: training would see"
    )
    with pytest.raises(ValueError, match=expected):
        MarketLayout(market).load()


def test_any_set_in_the_layout_has_no_counts_to_keep(market, recwarn):
    assert len(MarketLayout(market).load().train) == 2
    assert not recwarn


@pytest.mark.parametrize("reader", [DukeMTMCreID, OccludedDuke])
def test_duke(tmp_path, reader):
    plant(
        tmp_path,
        {
            "bounding_box_train": ["0001_c2_f0046182.jpg", "0001_c8_f0000001.jpg"],
            "query": ["0005_c2_f0046985.jpg"],
            "bounding_box_test": ["0002_c1_f0044158.jpg", "7139_c2_f0152867.jpg"],
        },
    )
    with pytest.warns(UserWarning, match="taken down by Duke University in 2019"):
        splits = reader(tmp_path).load()
    assert ids(splits.train) == [(1, 2), (1, 8)]
    assert ids(splits.query) == [(5, 2)]
    assert ids(splits.gallery) == [(2, 1), (7139, 2)]


class TestCUHK03:
    @pytest.fixture
    def root(self, tmp_path):
        splits = {
            "detected/bounding_box_train": ["0003_c1_21.png", "0003_c2_26.png"],
            "detected/query": ["0001_c1_1.png"],
            "detected/bounding_box_test": ["0001_c2_6.png"],
            "labeled/bounding_box_train": ["0003_c1_21.png"],
            "labeled/query": ["0001_c2_1.jpg"],
            "labeled/bounding_box_test": ["0001_c1_6.jpg", "0002_c1_6.jpg"],
        }
        return plant(tmp_path, splits)

    def test_detected(self, root):
        splits = CUHK03(root).load()
        assert [ids(split) for split in splits] == [[(3, 1), (3, 2)], [(1, 1)], [(1, 2)]]

    def test_labeled(self, root):
        with pytest.warns(UserWarning, match=r"has 7,368 \+ 1,400 \+ 5,328"):
            splits = CUHK03(root, boxes="labeled").load()
        assert [ids(split) for split in splits] == [[(3, 1)], [(1, 2)], [(1, 1), (2, 1)]]

    def test_neither(self):
        with pytest.raises(ValueError, match=r"boxes='labelled'.*'detected' and 'labeled'"):
            CUHK03("CUHK03-NP", boxes="labelled")

    def test_missing(self, tmp_path):
        with pytest.raises(FileNotFoundError, match=r"labeled/bounding_box_train: no such folder"):
            CUHK03(tmp_path, boxes="labeled").load()


def test_personx(tmp_path):
    plant(
        tmp_path,
        {
            "bounding_box_train": ["0001_c12s1_036.jpg", "0001_c3s1_001.jpg"],
            "query": ["0002_c4s1_001.jpg"],
            "bounding_box_test": ["0002_c10s1_001.jpg"],
        },
    )
    splits = PersonX(tmp_path).load()
    assert [ids(split) for split in splits] == [[(1, 12), (1, 3)], [(2, 4)], [(2, 10)]]


def test_veri776(tmp_path):
    plant(
        tmp_path,
        {
            "image_train": ["0001_c001_00016450_0.jpg", "0776_c020_00016450_0.jpg"],
            "image_query": ["0002_c002_00030600_0.jpg"],
            "image_test": ["0002_c003_00084280_0.jpg", "0005_c003_00077635_0.jpg"],
        },
    )
    (tmp_path / "name_query.txt").write_text("0002_c002_00030600_0.jpg\n")
    splits = VeRi776(tmp_path).load()
    assert ids(splits.train) == [(1, 1), (776, 20)]
    assert ids(splits.query) == [(2, 2)]
    assert ids(splits.gallery) == [(2, 3), (5, 3)]
