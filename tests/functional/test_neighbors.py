from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from pplr_lightning.functional import engines, nearest_neighbors, neighbor_lists
from pplr_lightning.functional import neighbors as module
from pplr_lightning.functional.sharding import Share


@pytest.mark.parametrize("backend", ["auto", "faiss", "torch"])
def test_hand_computed_neighbours(backend):
    angle = torch.deg2rad(torch.tensor([0.0, 10.0, 25.0, 90.0]))
    features = torch.stack([angle.cos(), angle.sin()], dim=1)
    found = nearest_neighbors(features, 3, backend=backend)
    assert found.tolist() == [[0, 1, 2], [1, 0, 2], [2, 1, 0], [3, 2, 1]]
    assert found.dtype == torch.int64


@pytest.mark.parametrize("backend", ["faiss", "torch"])
def test_equals_the_authors_neighbours(reference, backend):
    arrays = reference("labels")
    found = nearest_neighbors(arrays["features_global"], 21, backend=backend)
    assert torch.equal(found[:, 0], torch.arange(600))
    assert torch.equal(found[:, 1:], arrays["neighbours_global"])


def test_backends_agree(draw_features):
    features = draw_features(0, 700, dim=32)
    by_faiss = nearest_neighbors(features, 20, backend="faiss")
    by_torch = nearest_neighbors(features, 20, backend="torch")
    assert torch.equal(by_faiss.sort().values, by_torch.sort().values)


def test_chunks_do_not_change_the_result(draw_features, monkeypatch):
    features = draw_features(1, 300)
    whole = nearest_neighbors(features, 10, backend="torch")
    monkeypatch.setattr(engines, "CHUNK_BYTES", 7 * 4 * 300)
    monkeypatch.setattr(neighbor_lists, "CHUNK", 41)
    assert torch.equal(nearest_neighbors(features, 10, backend="torch"), whole)
    assert torch.equal(nearest_neighbors(features, 10, backend="faiss"), whole)


@pytest.mark.parametrize("backend", ["faiss", "torch"])
def test_of_equals_the_lowest_index_comes_first(draw_features, backend):
    features = draw_features(6, 200)
    features[[150, 20, 80]] = features[3].clone()
    found = nearest_neighbors(features, 4, backend=backend)
    for image in (3, 20, 80, 150):
        assert found[image].tolist() == [3, 20, 80, 150]


def test_backends_agree_on_many_sets(draw_features):
    for seed in range(10):
        features = draw_features(seed, 400, dim=24, duplicates=6)
        by_faiss = nearest_neighbors(features, 15, backend="faiss")
        assert torch.equal(by_faiss, nearest_neighbors(features, 15, backend="torch"))
        exact = features.double() @ features.double().T
        nearest = exact.sort(dim=1, descending=True, stable=True).indices[:, :15]
        torch.testing.assert_close(
            exact.gather(1, by_faiss), exact.gather(1, nearest), atol=1e-12, rtol=0
        )


@pytest.mark.parametrize("backend", ["faiss", "torch"])
def test_many_equals_are_all_searched(draw_features, backend):
    features = draw_features(9, 400)
    equals = torch.arange(7, 400, 6)
    features[equals] = features[7].clone()
    found = nearest_neighbors(features, 10, backend=backend)
    assert (found[equals] == equals[:10]).all()
    same = F.normalize(torch.ones(300, 5), dim=1)
    expected = torch.arange(5).expand(300, 5)
    assert torch.equal(nearest_neighbors(same, 5, backend=backend), expected)


def test_an_approximate_search_states_its_recall(draw_features, monkeypatch):
    features = draw_features(7, 2000, dim=32)
    exact = nearest_neighbors(features, 20)
    assert torch.equal(nearest_neighbors(features, 20, index="ivf"), exact)  # few images
    monkeypatch.setattr(module, "APPROXIMATE_FROM", 2000)
    with pytest.warns(UserWarning, match="approximate neighbours: a recall of 1.0000"):
        every_cell = nearest_neighbors(features, 20, index="ivf", probes=10_000)
    assert torch.equal(every_cell, exact)
    with pytest.warns(UserWarning, match="approximate neighbours: a recall of 0"):
        found = nearest_neighbors(features, 20, index="ivf", probes=2)
    share = (found[:, :, None] == exact[:, None]).any(dim=2).float().mean()
    assert 0.2 < share < 0.999
    assert module.recall(features, found, Share(2000)) == pytest.approx(float(share), abs=0.02)
    assert (found >= 0).all()  # cells with fewer than 20 images are made up for


def test_recall_of_known_lists(draw_features):
    features = draw_features(8, 60)
    half = nearest_neighbors(features, 10)
    half[:, 5:] = half[:, 5:].roll(30, dims=0)
    kept = (half[:, :, None] == nearest_neighbors(features, 10)[:, None]).any(dim=2)
    assert module.recall(features, half, Share(60)) == pytest.approx(float(kept.float().mean()))


@pytest.mark.parametrize("backend", ["faiss", "torch"])
def test_one_image_and_all_images(backend):
    assert nearest_neighbors(torch.ones(1, 1), 1, backend=backend).tolist() == [[0]]
    equal = F.normalize(torch.ones(5, 3), dim=1)
    assert nearest_neighbors(equal, 5, backend=backend).sort().values.tolist() == [[*range(5)]] * 5


@pytest.mark.usefixtures("three_threads")
@pytest.mark.parametrize("backend", ["faiss", "torch"])
def test_leaves_threads_and_precision_alone(draw_features, backend):
    faiss = pytest.importorskip("faiss")
    faiss.omp_set_num_threads(3)
    torch.set_float32_matmul_precision("high")
    try:
        before = torch.get_num_threads(), faiss.omp_get_max_threads()
        nearest_neighbors(draw_features(2, 50), 5, backend=backend)
        assert (torch.get_num_threads(), faiss.omp_get_max_threads()) == before
        assert torch.backends.cuda.matmul.allow_tf32
    finally:
        torch.set_float32_matmul_precision("highest")
        faiss.omp_set_num_threads(1)


def test_autocast_does_not_coarsen_the_search(draw_features):
    features = draw_features(3, 300)
    exact = nearest_neighbors(features, 10, backend="torch")
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(nearest_neighbors(features, 10, backend="torch"), exact)


@pytest.mark.parametrize(
    ("features", "k", "message"),
    [
        (torch.ones(4), 1, r"features must be 2-D.*\(4,\)"),
        (torch.ones(4, 1), 5, "k=5 for 4 images; lower k"),
        (torch.ones(4, 1), 0, "k must be at least 1, got 0"),
        (torch.tensor([[1.0], [torch.nan]]), 1, "NaN or Inf in 1 of 2 rows, first in row 1"),
        (torch.tensor([[torch.inf], [1.0]]), 1, "NaN or Inf in 1 of 2 rows, first in row 0"),
        (torch.tensor([[1.0], [1.002]]), 1, r"L2-normalised, got a norm of 1\.002 in row 1"),
    ],
)
def test_bad_input(features, k, message):
    with pytest.raises(ValueError, match=message):
        nearest_neighbors(features, k)


def test_tolerates_norms_near_one():
    assert nearest_neighbors(torch.tensor([[1.0009], [0.9991]]), 1).shape == (2, 1)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("backend", ["auto", "faiss", "torch"])
def test_gpu_equals_cpu(draw_features, backend):
    features = draw_features(5, 2000, dim=64)
    expected = (features.double() @ features.double().T).topk(20).indices
    torch.set_float32_matmul_precision("high")  # TF32 must not reach the search
    try:
        found = nearest_neighbors(features.cuda(), 20, backend=backend)
    finally:
        torch.set_float32_matmul_precision("highest")
    assert found.is_cuda
    same = (found.cpu().sort().values == expected.sort().values).all(dim=1)
    assert same.float().mean() > 0.999
