from __future__ import annotations

import pytest
import torch
from sklearn.metrics import adjusted_rand_score

from pplr_lightning import functional as F
from pplr_lightning.data import Sample
from pplr_lightning.labelers import KMeans, Space

from ..processes import launch
from .people import features, shared_space


def _label(rank):
    space = shared_space(rank)
    with space.share:
        return KMeans(num_clusters=20).label(space)


def _label_too_many(rank):
    space = shared_space(rank)
    with space.share:
        return KMeans(num_clusters=361).label(space)


def test_finds_as_many_as_asked_for_and_leaves_none_out():
    whole, _ = features()
    classes = KMeans(num_clusters=5).label(Space.of(whole))
    assert adjusted_rand_score(classes, torch.arange(5).repeat_interleave(8)) == 1
    assert torch.equal(classes, F.kmeans(whole, num_clusters=5))


@pytest.mark.parametrize("world_size", [2, 4])
def test_is_equal_on_all_ranks_and_does_not_depend_on_their_number(world_size, tmp_path):
    alone = _label(0)
    assert len(alone.unique()) == 20
    for classes in launch(_label, world_size, tmp_path):
        assert torch.equal(classes, alone)


def test_an_error_of_the_first_rank_stops_all(tmp_path):
    first, second = launch(_label_too_many, 2, tmp_path)
    assert first.startswith("ValueError: num_clusters")
    assert second == f"ValueError: rank 0 stopped with {first}"


def test_fewer_images_than_clusters():
    with pytest.raises(ValueError, match=r"labeler.num_clusters=8 for 6 images"):
        KMeans(num_clusters=8).check([Sample("x.jpg", -1, -1)] * 6)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_clusters": 1}, "labeler.num_clusters must be at least 2, got 1"),
        ({"seed": -1}, "labeler.seed must be at least 0, got -1"),
        ({"iterations": 0}, "labeler.iterations must be at least 1, got 0"),
    ],
)
def test_bad_options(options, message):
    with pytest.raises(ValueError, match=message):
        KMeans(**options)
