from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.cluster import KMeans
from sklearn.datasets import make_blobs

from pplr_lightning.functional import engines, kmeans
from pplr_lightning.functional import partition as module

from ..conftest import warns_of_nothing


@pytest.fixture(params=["faiss", "scikit-learn"])
def library(request, monkeypatch):
    """Run a test with FAISS, and as if it were not installed."""
    if request.param == "faiss":
        pytest.importorskip("faiss")
    else:
        monkeypatch.setattr(engines, "import_faiss", lambda: None)
    return request.param


def draw_blobs(seed, images=600, blobs=20, dim=16, spread=3.0):
    rows, _ = make_blobs(images, dim, centers=blobs, cluster_std=spread, random_state=seed)
    return torch.from_numpy(rows)


def inertia(features, labels):
    """Sum the squared distances to the means of the clusters."""
    groups = [features[labels == label] for label in labels.unique()]
    return sum(float(((group - group.mean(dim=0)) ** 2).sum()) for group in groups)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("clusters", [5, 20, 40])
def test_inertia_is_that_of_scikit_learn(library, seed, clusters):
    features = draw_blobs(seed)
    model = KMeans(clusters, n_init=1, random_state=seed).fit(features.numpy())
    labels = kmeans(features, num_clusters=clusters, seed=seed)
    assert inertia(features, labels) <= 1.01 * model.inertia_


def test_labels_are_numbered_without_gaps(library):
    labels = kmeans(draw_blobs(0), num_clusters=30)
    assert labels.shape == (600,)
    assert labels.dtype == torch.int64
    assert labels.unique().tolist() == list(range(30))


def test_blobs_are_found(library):
    rows, owners = make_blobs(300, 8, centers=6, cluster_std=0.1, random_state=1)
    labels = kmeans(torch.from_numpy(rows), num_clusters=6)
    pairs = {*zip(owners.tolist(), labels.tolist(), strict=True)}
    assert len(pairs) == 6


def test_same_seed_same_labels(library):
    features = draw_blobs(2, spread=8.0)
    before = features.clone()
    first, again, other = (kmeans(features, num_clusters=25, seed=seed) for seed in (3, 3, 4))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert torch.equal(features, before)


def test_every_image_is_used(library):
    # More than the 256 images of a cluster that FAISS takes by default.
    features = torch.cat([torch.zeros(2000, 2), torch.full((3, 2), 9.0)])
    features += 0.01 * torch.randn(features.shape, generator=torch.Generator().manual_seed(0))
    labels = kmeans(features, num_clusters=2)
    assert sorted(labels.bincount().tolist()) == [3, 2000]


def test_as_many_clusters_as_images(library):
    features = torch.randn(17, 4, generator=torch.Generator().manual_seed(0))
    assert sorted(kmeans(features, num_clusters=17).tolist()) == list(range(17))
    assert kmeans(features, num_clusters=1).tolist() == [0] * 17


@pytest.mark.filterwarnings("ignore:Number of distinct clusters")
def test_duplicates_leave_no_empty_cluster(library):
    features = torch.eye(3).repeat(10, 1)
    labels = kmeans(features, num_clusters=8)
    found = len(labels.unique())
    assert labels.unique().tolist() == list(range(found))
    # Equal images share a cluster.
    assert found == 3
    assert torch.equal(labels, labels[:3].repeat(10))


def test_types_and_gradients(library):
    features = draw_blobs(0, images=60, blobs=3)
    expected = kmeans(features, num_clusters=3)
    single = features.float().requires_grad_()
    assert torch.equal(kmeans(single, num_clusters=3), expected)
    assert not expected.requires_grad


@warns_of_nothing
def test_is_quiet(library, capfd):
    kmeans(draw_blobs(0, images=50), num_clusters=20)
    assert capfd.readouterr() == ("", "")


def test_faiss_iterates_on_the_gpu_where_it_can(monkeypatch):
    pytest.importorskip("faiss")
    moved = []
    monkeypatch.setattr(module, "choose_engine", lambda backend: "faiss-gpu")
    monkeypatch.setattr(module, "to_own_gpu", lambda index: moved.append(index) or index)
    labels = kmeans(draw_blobs(0), num_clusters=5)
    assert [type(index).__name__ for index in moved] == ["IndexFlatL2"]
    monkeypatch.undo()
    assert torch.equal(labels, kmeans(draw_blobs(0), num_clusters=5))


@pytest.mark.parametrize(
    ("features", "options", "message"),
    [
        (torch.ones(3), {"num_clusters": 1}, r"features must be 2-D, \(N, D\), got shape \(3,\)"),
        (torch.full((3, 2), np.nan), {"num_clusters": 1}, "features must be finite"),
        (torch.ones(3, 2), {"num_clusters": 0}, "num_clusters must be at least 1, got 0"),
        (torch.ones(3, 2), {"num_clusters": 4}, "num_clusters=4 for 3 images; lower num_clusters"),
        (torch.ones(3, 2), {"num_clusters": 2, "iterations": 0}, "iterations must be at least 1"),
    ],
)
def test_bad_input(features, options, message):
    with pytest.raises(ValueError, match=message):
        kmeans(features, **options)
