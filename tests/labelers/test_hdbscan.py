from __future__ import annotations

import pytest
import torch
from sklearn.metrics import adjusted_rand_score

from pplr_lightning import functional as F
from pplr_lightning.data import Sample
from pplr_lightning.labelers import HDBSCAN, Space

from ..processes import launch
from .people import features, shared_space


def _label(rank):
    space = shared_space(rank)
    with space.share:
        return HDBSCAN(k1=12, k2=6).label(space)


def test_finds_well_separated_groups_without_an_eps():
    classes = HDBSCAN(k1=8, k2=3).label(Space.of(*features()))
    assert adjusted_rand_score(classes, torch.arange(5).repeat_interleave(8)) == 1


def test_is_the_functions_in_their_order():
    whole, _ = features(clusters=30, spread=0.4)
    labeler = HDBSCAN(k1=8, k2=3, min_cluster_size=3, min_samples=2)
    expected = F.hdbscan(F.jaccard_distance(whole, k1=8, k2=3), min_cluster_size=3, min_samples=2)
    assert torch.equal(labeler.label(Space.of(whole)), expected)


@pytest.mark.parametrize("world_size", [2, 4])
def test_does_not_depend_on_the_number_of_ranks(world_size, tmp_path):
    alone = _label(0)
    assert alone.max() > 10
    for classes in launch(_label, world_size, tmp_path):
        assert torch.equal(classes, alone)


def test_fewer_images_than_neighbours():
    with pytest.raises(ValueError, match=r"labeler.k1=8 for 6 images"):
        HDBSCAN(k1=8, k2=3).check([Sample("x.jpg", -1, -1)] * 6)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"k1": 0}, "labeler.k1 must be at least 1, got 0"),
        ({"min_samples": 0}, "labeler.min_samples must be at least 1, got 0"),
        ({"min_cluster_size": 1}, "labeler.min_cluster_size must be at least 2, got 1"),
    ],
)
def test_bad_options(options, message):
    with pytest.raises(ValueError, match=message):
        HDBSCAN(**options)
