from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.cluster import AgglomerativeClustering
from sklearn.metrics import adjusted_rand_score

from pplr_lightning.functional.linkage import (
    average_linkage,
    camera_distance,
    mix_rate,
    reciprocal_distance,
    score_similarity,
)

REFERENCE = Path(__file__).parents[1] / "reference"
EXACT = {"rtol": 1e-12, "atol": 1e-12}


@pytest.fixture(scope="module")
def arrays():
    with np.load(REFERENCE / "iics_inter.npz") as file:
        return {name: file[name] for name in file.files}


@pytest.mark.parametrize(("dtype", "tolerance"), [("float64", 1e-12), ("float32", 1e-5)])
def test_distances_are_the_authors(arrays, dtype, tolerance):
    features, scores = (torch.from_numpy(arrays[n].astype(dtype)) for n in ("features", "scores"))
    found = score_similarity(scores).numpy()
    np.testing.assert_allclose(found, arrays["jaccard_similarity"], rtol=tolerance, atol=tolerance)
    cameras = torch.from_numpy(arrays["cameras"])
    mixed = camera_distance(features, cameras, scores, mix_rate=float(arrays["mix_rate"]))
    np.testing.assert_allclose(mixed, arrays["mixed_distance"], rtol=tolerance, atol=tolerance)


def test_mix_rates_are_the_authors():
    with np.load(REFERENCE / "iics_mix_rate.npz") as file:
        found = [mix_rate(epoch, int(file["epochs"])) for epoch in file["epoch"].tolist()]
        np.testing.assert_allclose(found, file["mix_rate"], rtol=1e-12)


def test_reranked_distances_are_the_authors_but_for_their_16_bits(arrays):
    found = reciprocal_distance(torch.from_numpy(arrays["mixed_distance"]))
    np.testing.assert_allclose(found, arrays["reranked"], atol=3e-3)
    assert (found - found.T).abs().max() > 0.05  # theirs is not symmetric, either


def test_labels_are_the_authors(arrays):
    """From their re-ranked distances; `CameraLinkage` is tested from the features on."""
    share = float(arrays["threshold_share"])
    labels, threshold = average_linkage(torch.from_numpy(arrays["reranked"]), share=share)
    assert threshold == pytest.approx(float(arrays["threshold"]), rel=1e-12)
    assert adjusted_rand_score(labels, arrays["labels_by_threshold"]) == 1


def test_is_the_linkage_of_scikit_learn():
    points = np.random.default_rng(0).normal(size=(60, 3))
    distance = np.linalg.norm(points[:, None] - points, axis=2)
    labels, threshold = average_linkage(torch.from_numpy(distance), share=0.02)
    other = AgglomerativeClustering(
        n_clusters=None, metric="precomputed", linkage="average", distance_threshold=threshold
    ).fit_predict(distance)
    assert adjusted_rand_score(labels, other) == 1
    assert 2 < labels.max() < 59
    firsts = [labels.tolist().index(number) for number in range(int(labels.max()) + 1)]
    assert firsts == sorted(firsts)


@pytest.mark.parametrize("images", [1, 2, 3])
def test_few_images(images):
    labels, _ = average_linkage(torch.zeros(images, images), share=0.1)
    assert len(labels) == images


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: average_linkage(torch.zeros(2, 3), share=0.1), "square"),
        (lambda: average_linkage(torch.zeros(2, 2), share=1.0), "share=1.0"),
        (lambda: reciprocal_distance(torch.zeros(5, 5), k1=20), "k1=20"),
        (lambda: reciprocal_distance(torch.zeros(5, 5), k1=2, k2=6), "k2=6"),
        (lambda: score_similarity(torch.zeros(3)), r"scores must be \(N, S\)"),
        (
            lambda: camera_distance(torch.eye(3), torch.zeros(2), torch.ones(3, 1), mix_rate=0),
            "cameras must have shape",
        ),
    ],
)
def test_bad_input(call, message):
    with pytest.raises(ValueError, match=message):
        call()
