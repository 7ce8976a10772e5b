from __future__ import annotations

import re
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from pplr_lightning.functional import nearest_neighbors
from pplr_lightning.functional import neighbors as module


@pytest.fixture
def fake_gpu(monkeypatch):
    """Pretend that torch sees a GPU and FAISS can use it; search on the CPU and say so."""
    calls = []

    def knn_gpu(resources, queries, gallery, k, *, metric, device):
        calls.append((metric, device))
        return None, np.argsort(-queries @ gallery.T, axis=1)[:, :k]

    faiss = SimpleNamespace(
        StandardGpuResources=object,
        get_num_gpus=lambda: 1,
        knn_gpu=knn_gpu,
        METRIC_INNER_PRODUCT=0,
        calls=calls,
    )
    monkeypatch.setattr(module, "_import_faiss", lambda: faiss)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 3)
    return faiss


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
    monkeypatch.setattr(module, "CHUNK_BYTES", 7 * 4 * 300)
    assert len(list(module.similarity_chunks(features, features))) == 43
    assert torch.equal(nearest_neighbors(features, 10, backend="torch"), whole)


@pytest.mark.parametrize("backend", ["faiss", "torch"])
def test_one_image_and_all_images(backend):
    assert nearest_neighbors(torch.ones(1, 1), 1, backend=backend).tolist() == [[0]]
    equal = F.normalize(torch.ones(5, 3), dim=1)
    assert nearest_neighbors(equal, 5, backend=backend).sort().values.tolist() == [[*range(5)]] * 5


@pytest.mark.parametrize("backend", ["faiss", "torch"])
def test_leaves_threads_and_precision_alone(draw_features, backend):
    faiss = pytest.importorskip("faiss")
    torch.set_float32_matmul_precision("high")
    try:
        before = torch.get_num_threads(), faiss.omp_get_max_threads()
        nearest_neighbors(draw_features(2, 50), 5, backend=backend)
        assert (torch.get_num_threads(), faiss.omp_get_max_threads()) == before
        assert torch.backends.cuda.matmul.allow_tf32
    finally:
        torch.set_float32_matmul_precision("highest")


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


def test_unknown_backend():
    with pytest.raises(ValueError, match="one of auto, faiss, faiss-gpu, torch, got 'annoy'"):
        nearest_neighbors(torch.ones(2, 1), 1, backend="annoy")


def test_faiss_gpu_without_gpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ValueError, match="backend='faiss-gpu' cannot run: torch sees no GPU"):
        nearest_neighbors(torch.ones(2, 1), 1, backend="faiss-gpu")


def test_faiss_gpu_with_cpu_build(fake_gpu):
    del fake_gpu.StandardGpuResources  # a CPU build still has knn_gpu
    with pytest.raises(ValueError, match="FAISS has no GPU support here; install"):
        nearest_neighbors(torch.ones(2, 1), 1, backend="faiss-gpu")
    assert module.choose_engine("auto") == "torch"
    assert module.choose_engine("faiss") == "faiss"


@pytest.mark.parametrize("backend", ["auto", "faiss", "faiss-gpu"])
def test_faiss_searches_on_the_gpu(fake_gpu, draw_features, backend):
    features = draw_features(4, 60)
    found = nearest_neighbors(features, 5, backend=backend)
    assert torch.equal(found, (features @ features.T).argsort(descending=True)[:, :5])
    assert fake_gpu.calls == [(fake_gpu.METRIC_INNER_PRODUCT, 3)]  # this process's GPU


def test_without_faiss(monkeypatch):
    monkeypatch.setattr(module, "_import_faiss", lambda: None)
    assert module.choose_engine("auto") == "torch"
    with pytest.raises(ValueError, match=re.escape("install pplr-lightning[cpu]")):
        nearest_neighbors(torch.ones(2, 1), 1, backend="faiss")


@pytest.mark.parametrize("backend", ["auto", "faiss", "faiss-gpu"])
def test_two_faiss_wheels(monkeypatch, backend):
    monkeypatch.setattr(
        module.metadata, "version", {"faiss-cpu": "1", "faiss-gpu": "1"}.__getitem__
    )
    monkeypatch.setattr(module.metadata, "PackageNotFoundError", KeyError)
    with pytest.raises(ValueError, match=r"faiss-cpu and faiss-gpu are both installed.*uninstall"):
        nearest_neighbors(torch.ones(2, 1), 1, backend=backend)
    assert nearest_neighbors(torch.ones(2, 1), 1, backend="torch").shape == (2, 1)


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
