from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.metrics import adjusted_rand_score

from pplr_lightning.data import Sample
from pplr_lightning.labelers import CameraLinkage, Space

from ..methods.small_runs import read


@pytest.fixture(scope="module")
def arrays():
    return read("iics_inter")


def space(arrays, *, scores=False):
    return Space.of(
        arrays["features"],
        cameras=arrays["cameras"],
        scores=arrays["scores"] if scores else None,
    )


def test_clusters_across_cameras_are_the_authors(arrays):
    """A threshold near theirs, of which 16 bits are kept, on the same side of every merge."""
    labeler = CameraLinkage(share_across=float(arrays["threshold_share"]))
    classes = labeler.label(space(arrays, scores=True))
    assert adjusted_rand_score(classes, arrays["labels_by_threshold"]) > 0.98


def test_classes_within_cameras_are_of_one_camera_each(arrays):
    labeler = CameraLinkage(k1=8, share_within=0.1)
    classes = labeler.label(space(arrays))
    cameras = arrays["cameras"]
    first = 0
    for camera in range(3):
        own = classes[cameras == camera].unique()
        assert own.tolist() == list(range(first, first + len(own)))
        first += len(own)
    assert 3 < first < len(classes)
    assert labeler.round == 0


def test_the_scores_weight_falls_with_the_rounds_and_goes_on(arrays, monkeypatch):
    rates = []
    monkeypatch.setattr(
        "pplr_lightning.labelers.camera_linkage.camera_distance",
        lambda features, cameras, scores, mix_rate: (
            rates.append(mix_rate) or 1 - features @ features.T
        ),
    )
    labeler = CameraLinkage(k1=8, rounds=4)
    labeler.label(space(arrays, scores=True))
    other = CameraLinkage(k1=8, rounds=4)
    other.load_state_dict(labeler.state_dict())
    other.label(space(arrays, scores=True))
    assert rates == pytest.approx([0.02, 0.02 * 0.75**0.6])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"k1": 0}, "labeler.k1"),
        ({"lambda_": 2.0}, "labeler.lambda_"),
        ({"share_within": 0.0}, "labeler.share_within=0.0: must lie in"),
        ({"share_across": 1.0}, "labeler.share_across=1.0"),
        ({"mix_rate": np.inf}, "labeler.mix_rate=inf"),
    ],
)
def test_bad_options(options, message):
    with pytest.raises(ValueError, match=message):
        CameraLinkage(**options)


@pytest.mark.parametrize(
    ("cameras", "message"),
    [
        ([0] * 40, "CameraLinkage: cameras must be two or more"),
        ([0, -1] * 20, "CameraLinkage: cameras must be known"),
        ([0] * 30 + [4] * 10, "camera 4 has 10 images, too few for labeler.k1=20"),
    ],
)
def test_images_that_cannot_be_labelled(cameras, message):
    with pytest.raises(ValueError, match=message):
        CameraLinkage().check([Sample("", 0, camera) for camera in cameras])


def test_needs_cameras():
    with pytest.raises(ValueError, match="CameraLinkage needs cameras"):
        CameraLinkage().label(Space.of(torch.eye(4)))
