from __future__ import annotations

import pytest

from pplr_lightning.data import OccludedREID, PDukeMTMCreID

from .trees import ids, plant, touch

pytestmark = pytest.mark.filterwarnings("ignore:.*as published has", "ignore:.*taken down")

PEOPLE = {
    "occluded_body_images/001": ["001_01.tif", "001_02.tif"],
    "occluded_body_images/012": ["012_01.tif"],
    "whole_body_images/001": ["001_01.tif"],
    "whole_body_images/012": ["012_01.tif", "012_02.tif"],
}


def test_occluded_reid(tmp_path):
    splits = OccludedREID(plant(tmp_path, PEOPLE)).load()
    assert splits.train == []
    assert ids(splits.query) == [(1, 0), (1, 0), (12, 0)]
    assert ids(splits.gallery) == [(1, 1), (12, 1), (12, 1)]
    touch(tmp_path / "whole_body_images/others/1.tif")
    with pytest.raises(ValueError, match="a folder for each person, of a number; 'others' is none"):
        OccludedREID(tmp_path).load()


def test_p_duke(tmp_path):
    plant(tmp_path / "train", {name.replace("0", "1"): images for name, images in PEOPLE.items()})
    splits = PDukeMTMCreID(plant(tmp_path / "test", PEOPLE).parent).load()
    assert ids(splits.train) == [(111, 0)] * 2 + [(112, 0)] + [(111, 1)] + [(112, 1)] * 2
    assert ids(splits.query) == [(1, 0), (1, 0), (12, 0)]
    with pytest.raises(FileNotFoundError, match=r"train/occluded_body_images: no such folder"):
        PDukeMTMCreID(tmp_path / "test").load()
