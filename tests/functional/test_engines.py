from __future__ import annotations

import re
from types import SimpleNamespace

import pytest
import torch

from pplr_lightning.functional import engines as module
from pplr_lightning.functional import nearest_neighbors


@pytest.fixture
def fake_gpu(monkeypatch):
    """Pretend that torch sees a GPU and FAISS can use it; search on the CPU and say so."""
    calls = []

    def index_cpu_to_gpu(resources, device, index):
        calls.append((type(resources), device, type(index).__name__))
        return index

    cpu = pytest.importorskip("faiss")
    faiss = SimpleNamespace(
        StandardGpuResources=SimpleNamespace,
        get_num_gpus=lambda: 1,
        index_factory=cpu.index_factory,
        index_cpu_to_gpu=index_cpu_to_gpu,
        METRIC_INNER_PRODUCT=cpu.METRIC_INNER_PRODUCT,
        calls=calls,
    )
    monkeypatch.setattr(module, "import_faiss", lambda: faiss)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 3)
    module.gpu_resources.cache_clear()
    yield faiss
    module.gpu_resources.cache_clear()


def test_full_precision_is_back_as_it_was_afterwards():
    torch.set_float32_matmul_precision("medium")
    try:
        before = [getattr(*switch[:2]) for switch in module.precision_switches()]
        with module.full_precision(torch.device("cpu")):
            inside = [getattr(*switch[:2]) for switch in module.precision_switches()]
        assert inside == [exact for _, _, exact in module.precision_switches()] != before
        assert [getattr(*switch[:2]) for switch in module.precision_switches()] == before
    finally:
        torch.set_float32_matmul_precision("highest")


def test_similarities_come_in_chunks(monkeypatch):
    queries, gallery = torch.rand(300, 4), torch.rand(50, 4)
    monkeypatch.setattr(module, "CHUNK_BYTES", 7 * 4 * 50)
    chunks = list(module.similarity_chunks(queries, gallery))
    assert [len(chunk) for chunk in chunks] == [7] * 42 + [6]
    torch.testing.assert_close(torch.cat(chunks), queries @ gallery.T)


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
    assert fake_gpu.calls == [(SimpleNamespace, 3, "IndexFlat")]  # this process's GPU


def test_without_faiss(monkeypatch):
    monkeypatch.setattr(module, "import_faiss", lambda: None)
    assert module.choose_engine("auto") == "torch"
    with pytest.raises(ValueError, match=re.escape("install pplr-lightning[cpu]")):
        nearest_neighbors(torch.ones(2, 1), 1, backend="faiss")
    with pytest.raises(ValueError, match="index='ivf' cannot run: FAISS is not installed"):
        module.choose_engine("auto", "ivf")


def test_approximate_search_is_of_faiss(fake_gpu):
    with pytest.raises(ValueError, match="index must be one of flat, ivf, got 'hnsw'"):
        module.choose_engine("auto", "hnsw")
    with pytest.raises(ValueError, match="index='ivf' is FAISS's, got backend='torch'"):
        module.choose_engine("torch", "ivf")
    assert module.choose_engine("auto", "ivf") == "faiss-gpu"
    del fake_gpu.StandardGpuResources
    assert module.choose_engine("auto", "ivf") == "faiss"


@pytest.mark.parametrize("backend", ["auto", "faiss", "faiss-gpu"])
def test_two_faiss_wheels(monkeypatch, backend):
    installed = {"faiss-cpu": ["1"], "faiss-gpu": ["1"]}
    monkeypatch.setattr(module.metadata, "distributions", lambda name: installed.get(name, []))
    with pytest.raises(ValueError, match=r"faiss-cpu and faiss-gpu are both installed.*uninstall"):
        nearest_neighbors(torch.ones(2, 1), 1, backend=backend)
    assert nearest_neighbors(torch.ones(2, 1), 1, backend="torch").shape == (2, 1)
