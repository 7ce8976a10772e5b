from __future__ import annotations

import pytest
import torch

from pplr_lightning import functional as F
from pplr_lightning.data import Sample
from pplr_lightning.labelers import DBSCAN, CameraDBSCAN, Space

from ..processes import launch
from .people import features, shared_space


def _label(rank, broken=False):
    space = shared_space(rank, broken=broken)
    with space.share:
        return DBSCAN(k1=12, k2=6).label(space)


def test_finds_well_separated_groups():
    classes = DBSCAN(k1=8, k2=3).label(Space.of(*features()))
    assert torch.equal(classes, torch.arange(5).repeat_interleave(8))


@pytest.mark.filterwarnings("error")
def test_warns_of_a_k1_that_is_large_for_the_images():
    images = [Sample(f"{number}.jpg", -1, -1) for number in range(660)]
    message = r"labeler.k1=30 suits people of about 30 images each, of whom 660 images show 22"
    with pytest.warns(UserWarning, match=message):
        DBSCAN().check(images)
    DBSCAN(k1=10).check(images)


def test_is_the_functions_in_their_order():
    whole, _ = features(spread=0.4)
    classes = DBSCAN(k1=8, k2=3, eps=0.6, min_samples=3).label(Space.of(whole))
    distance = F.jaccard_distance(whole, k1=8, k2=3)
    assert torch.equal(classes, F.dbscan(distance, eps=0.6, min_samples=3))
    assert (classes < 0).any()


@pytest.mark.parametrize("world_size", [2, 4])
def test_does_not_depend_on_the_number_of_ranks(world_size, tmp_path):
    alone = _label(0)
    assert alone.max() > 10
    assert (alone < 0).any()
    for classes in launch(_label, world_size, tmp_path):
        assert torch.equal(classes, alone)


def test_eps_is_chosen_once():
    """By the distances of the first epoch, whatever eps is; a run that goes on has it."""
    (first, _), (later, _) = features(spread=0.4), features(spread=0.1)
    labeler = DBSCAN(k1=8, k2=3, eps=1.0, min_samples=3, rho=0.1)
    classes = labeler.label(Space.of(first))
    distance = F.jaccard_distance(first, k1=8, k2=3)
    eps = F.choose_eps(distance, rho=0.1)
    assert labeler.state_dict() == {"chosen": eps}
    assert torch.equal(classes, F.dbscan(distance, eps=eps, min_samples=3))
    other = DBSCAN(k1=8, k2=3, min_samples=3, rho=0.1)
    other.load_state_dict(labeler.state_dict())
    expected = F.dbscan(F.jaccard_distance(later, k1=8, k2=3), eps=eps, min_samples=3)
    for one in (labeler, other):
        assert torch.equal(one.label(Space.of(later)), expected)
    cameras = torch.arange(40) % 3
    by_cameras = CameraDBSCAN(k1_intra=3, k1_inter=7, rho=0.1)
    by_cameras.label(Space.of(first, cameras=cameras))
    assert 0 < by_cameras.chosen < 1


def test_fewer_images_than_neighbours():
    with pytest.raises(ValueError, match=r"labeler.k1=8 for 6 images"):
        DBSCAN(k1=8, k2=3).check([Sample("x.jpg", -1, -1)] * 6)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"k1": 0}, "labeler.k1 must be at least 1, got 0"),
        ({"k2": -1}, "labeler.k2 must be at least 1, got -1"),
        ({"min_samples": 0}, "labeler.min_samples must be at least 1, got 0"),
        ({"eps": 0}, r"labeler.eps=0: a Jaccard distance lies in \(0, 1\]"),
        ({"eps": 1.5}, "labeler.eps=1.5"),
        ({"rho": 0.0}, r"labeler.rho=0.0: must lie in \(0, 1\)"),
    ],
)
def test_bad_options(options, message):
    with pytest.raises(ValueError, match=message):
        DBSCAN(**options)
