from __future__ import annotations

import pytest
import torch

from pplr_lightning import functional as F
from pplr_lightning.data import Sample
from pplr_lightning.labelers import DBSCAN, CameraDBSCAN, Space

from ..processes import launch
from .people import features, shared_space

COUNTS = {"k1_intra": 3, "k1_inter": 7, "k2_intra": 1, "k2_inter": 3}


def _label(rank):
    space = shared_space(rank)
    with space.share:
        return CameraDBSCAN().label(space)


def test_is_the_functions_in_their_order():
    whole, _ = features(spread=0.4)
    cameras = torch.arange(40) % 3
    classes = CameraDBSCAN(**COUNTS).label(Space.of(whole, cameras=cameras))
    distance = F.camera_jaccard_distance(whole, cameras, **COUNTS)
    assert torch.equal(classes, F.dbscan(distance, eps=0.5, min_samples=4))
    assert not torch.equal(classes, DBSCAN(k1=8, k2=3).label(Space.of(whole)))


@pytest.mark.parametrize("world_size", [2, 4])
def test_does_not_depend_on_the_number_of_ranks(world_size, tmp_path):
    alone = _label(0)
    assert alone.max() > 10
    for classes in launch(_label, world_size, tmp_path):
        assert torch.equal(classes, alone)


@pytest.mark.parametrize(
    ("cameras", "message"),
    [
        ([-1], r"cameras must be known, .* got -1 for 40 of 40 images.*or use the labeler DBSCAN"),
        ([2, -1], "first image 1; give every image its camera, or use the labeler DBSCAN"),
        ([2], r"must be two or more, got \[2\] for all 40 images; use the labeler DBSCAN"),
    ],
)
def test_cameras_that_are_not_known(cameras, message):
    samples = [Sample("x.jpg", -1, cameras[n % len(cameras)]) for n in range(40)]
    with pytest.raises(ValueError, match=message):
        CameraDBSCAN().check(samples)
    space = Space.of(features()[0], cameras=torch.tensor([s.camera_id for s in samples]))
    with pytest.raises(ValueError, match=message):
        CameraDBSCAN().label(space)


def test_a_space_without_cameras():
    with pytest.raises(ValueError, match="CameraDBSCAN needs the camera of every image"):
        CameraDBSCAN().label(Space.of(features()[0]))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        *(({name: 0}, f"labeler.{name} must be at least 1, got 0") for name in COUNTS),
        ({"min_samples": 0}, "labeler.min_samples must be at least 1, got 0"),
        ({"eps": 1.5}, "labeler.eps=1.5"),
    ],
)
def test_bad_options(options, message):
    with pytest.raises(ValueError, match=message):
        CameraDBSCAN(**options)
