from __future__ import annotations

import pytest
import torch

from pplr_lightning import functional as F
from pplr_lightning.data import Sample
from pplr_lightning.labelers import NeighborComponents, Space

from ..processes import launch
from .people import features, shared_space


def _label(rank):
    space = shared_space(rank)
    with space.share:
        return NeighborComponents(k=2).label(space)


def test_images_that_find_each_other_are_of_one_class():
    whole, _ = features(clusters=4, each=3)
    classes = NeighborComponents(k=2).label(Space.of(whole))
    assert torch.equal(classes, torch.arange(4).repeat_interleave(3))
    assert torch.equal(classes, F.neighbor_components(F.nearest_neighbors(whole, 3), k=2))


@pytest.mark.parametrize("world_size", [2, 4])
def test_does_not_depend_on_the_number_of_ranks(world_size, tmp_path):
    alone = _label(0)
    assert alone.max() > 10
    for classes in launch(_label, world_size, tmp_path):
        assert torch.equal(classes, alone)


def test_bad_options():
    with pytest.raises(ValueError, match=r"labeler.k must be at least 1, got 0"):
        NeighborComponents(k=0)
    with pytest.raises(ValueError, match=r"labeler.k=6 for 5 images"):
        NeighborComponents(k=6).check([Sample("x.jpg", -1, -1)] * 6)
