from __future__ import annotations

import numpy as np
import pytest
import torch

from pplr_lightning import functional as F
from pplr_lightning.labelers import DBSCAN, SelfPaced, Space

from ..functional.conftest import REFERENCE
from ..functional.test_reliability import partition
from ..processes import launch
from .people import features, shared_space


def _label(rank):
    space, labeler = shared_space(rank), SelfPaced(k1=12, k2=6, eps=0.55, gap=0.15)
    with space.share:
        return labeler.label(space), labeler.threshold


def test_equals_the_authors_from_features_to_labels():
    """Two epochs, of which the second keeps the threshold of the first."""
    with np.load(REFERENCE / "spcl_refinement_wide.npz") as file:
        arrays = {name: torch.from_numpy(np.asarray(file[name])) for name in file.files}
    tight, eps, _ = arrays["eps"].tolist()
    labeler = SelfPaced(
        k1=int(arrays["k1"]),
        k2=int(arrays["k2"]),
        eps=eps,
        gap=eps - tight,
        min_samples=int(arrays["min_samples"]),
    )
    for epoch in (0, 1):
        found = labeler.label(Space.of(arrays[f"epoch{epoch}_features"]))
        assert labeler.threshold == float(arrays["epoch0_indep_threshold"])
        assert partition(found) == partition(arrays[f"epoch{epoch}_labels_spcl"])


def test_is_the_functions_in_their_order():
    whole, _ = features(spread=0.4)
    classes = SelfPaced(k1=8, k2=3, eps=0.6, gap=0.1, min_samples=3).label(Space.of(whole))
    distance = F.jaccard_distance(whole, k1=8, k2=3)
    labels, tight, loose = (F.dbscan(distance, eps=eps, min_samples=3) for eps in (0.6, 0.5, 0.7))
    assert torch.equal(classes, F.keep_reliable(labels, tight, loose)[0])


def test_no_image_is_left_out():
    """Outliers are classes of one, and what is well separated stays together."""
    whole, _ = features(spread=0.05)
    whole[-1] = torch.nn.functional.normalize(-whole.sum(0), dim=0)  # far from all
    classes = SelfPaced(k1=8, k2=3).label(Space.of(whole))
    plain = DBSCAN(k1=8, k2=3, eps=0.6).label(Space.of(whole))
    assert plain[-1] == -1
    assert torch.equal(classes[:-1], plain[:-1])
    assert classes[-1] == 5


def test_the_threshold_of_the_first_epoch_is_kept_and_in_the_state():
    whole, _ = features(clusters=20, spread=0.4)
    other, _ = features(clusters=20, spread=0.3)
    options = {"k1": 8, "k2": 3, "gap": 0.2}
    labeler, again = SelfPaced(**options), SelfPaced(**options)
    assert labeler.state_dict() == {"threshold": None}
    labeler.label(Space.of(whole))
    threshold = labeler.threshold
    assert threshold > 0
    again.load_state_dict(labeler.state_dict())
    assert torch.equal(labeler.label(Space.of(other)), again.label(Space.of(other)))
    assert labeler.threshold == again.threshold == threshold


@pytest.mark.parametrize("world_size", [2, 4])
def test_does_not_depend_on_the_number_of_ranks(world_size, tmp_path):
    alone, threshold = _label(0)
    sizes = torch.bincount(alone)
    assert (sizes > 1).sum() > 10
    assert (sizes == 1).sum() > 10
    for classes, other in launch(_label, world_size, tmp_path):
        assert torch.equal(classes, alone)
        assert other == threshold


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"k1": 0}, "labeler.k1 must be at least 1, got 0"),
        ({"eps": 1.5}, "labeler.eps=1.5"),
        ({"gap": 0}, r"labeler.gap=0: eps - gap and eps \+ gap must be .* here eps=0.6"),
        ({"gap": 0.6}, "labeler.gap=0.6"),
        ({"eps": 0.99}, "labeler.gap=0.02: .* here eps=0.99"),
    ],
)
def test_bad_options(options, message):
    with pytest.raises(ValueError, match=message):
        SelfPaced(**options)


def test_images_without_a_cluster():
    with pytest.raises(ValueError, match="no cluster of two images or more"):
        SelfPaced(k1=2, k2=1, min_samples=3).label(Space.of(torch.eye(4)))
