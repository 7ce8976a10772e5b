"""What searches: FAISS on GPU or CPU, or torch on either."""

from __future__ import annotations

import functools
import importlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import metadata
from typing import Any, cast

import torch
from torch import Tensor

BACKENDS = ("auto", "faiss", "faiss-gpu", "torch")
INDEXES = ("flat", "ivf")
GPU_LIMIT = 2048  # neighbours, and probes, that FAISS takes on a GPU
CHUNK_BYTES = 2**28  # similarities held at once by the torch engine

_FAISS_WHEELS = ("faiss-cpu", "faiss-gpu", "faiss-gpu-cu11", "faiss-gpu-cu12")

Finder = Callable[[Tensor, int], Tensor]


def choose_engine(backend: str, index: str = "flat") -> str:
    """Check that a backend of `nearest_neighbors` can run here, and name what will search.

    Args:
        backend: ``auto``, ``faiss``, ``faiss-gpu`` or ``torch``.
        index: ``flat`` or ``ivf``.

    Returns:
        ``faiss-gpu``, ``faiss`` (on the CPU) or ``torch`` (on the GPU if there is one).

    Raises:
        ValueError: The backend or index is unknown or cannot run here, or two FAISS wheels are
            installed.
    """
    if backend not in BACKENDS:
        raise ValueError(f"backend must be one of {', '.join(BACKENDS)}, got {backend!r}")
    if index not in INDEXES:
        raise ValueError(f"index must be one of {', '.join(INDEXES)}, got {index!r}")
    if backend == "torch" and index == "ivf":
        raise ValueError("index='ivf' is FAISS's, got backend='torch'; use backend='auto'")
    if backend == "torch":
        return "torch"
    faiss = import_faiss()
    gpu = torch.cuda.is_available()
    # A CPU build of FAISS has `knn_gpu`, too, but not the resources to call it with.
    faiss_gpu = gpu and hasattr(faiss, "StandardGpuResources") and faiss.get_num_gpus() > 0
    if faiss_gpu:
        return "faiss-gpu"
    if backend == "faiss-gpu":
        lack = "FAISS has no GPU support here" if gpu else "torch sees no GPU"
        raise ValueError(
            f"backend='faiss-gpu' cannot run: {lack}; install pplr-lightning[gpu] on a machine "
            "with a GPU, or use backend='auto'"
        )
    if faiss is None and (backend == "faiss" or index == "ivf"):
        option = "index='ivf'" if index == "ivf" else "backend='faiss'"
        raise ValueError(
            f"{option} cannot run: FAISS is not installed; install pplr-lightning[cpu] or "
            "pplr-lightning[gpu], or use backend='torch' and index='flat'"
        )
    if faiss is None or (gpu and backend == "auto" and index == "flat"):
        return "torch"
    return "faiss"


def open_finder(engine: str, gallery: Tensor, probes: int | None = None) -> Finder:
    """Make a gallery ready to be searched, on this process's own GPU where the engine uses one.

    Args:
        engine: As `choose_engine` names it.
        gallery: L2-normalised float32 rows, contiguous, on any device, (G, D).
        probes: Cells of an inverted file that are searched for each query; None searches all of
            the gallery, exactly.

    Returns:
        A function that takes float32 queries (Q, D) and k <= G, and returns the indices of each
        query's k most similar, (Q, k) int64 on their device; -1 where an inverted file found fewer.
    """
    if engine == "torch":
        return _torch_finder(gallery)
    faiss = import_faiss()
    on_gpu, gallery = engine == "faiss-gpu", gallery.cpu()
    if probes is None and not on_gpu:
        # Unlike an index, `knn` does not copy the gallery.
        metric = faiss.METRIC_INNER_PRODUCT
        return lambda queries, k: torch.from_numpy(
            faiss.knn(queries.cpu().numpy(), gallery.numpy(), k, metric=metric)[1]
        ).to(queries.device)
    cells = round(4 * len(gallery) ** 0.5)
    kind = "Flat" if probes is None else f"IVF{cells},Flat"
    index = faiss.index_factory(gallery.shape[1], kind, faiss.METRIC_INNER_PRODUCT)
    if on_gpu:
        index = to_own_gpu(index)
    if probes is not None:
        sample = torch.randperm(len(gallery), generator=torch.Generator().manual_seed(0))
        index.train(gallery[sample[: 64 * cells]].numpy())
        index.nprobe = min(probes, cells, GPU_LIMIT)
    index.add(gallery.numpy())

    def find(queries: Tensor, k: int) -> Tensor:
        if on_gpu and k > GPU_LIMIT:
            return _torch_finder(gallery)(queries, k)
        found = index.search(queries.cpu().numpy(), k)[1]
        return torch.from_numpy(found).to(queries.device)

    return find


def to_own_gpu(index: Any) -> Any:
    """Copy a FAISS index to this process's own GPU."""
    device = torch.cuda.current_device()
    return import_faiss().index_cpu_to_gpu(gpu_resources(device), device, index)


@functools.cache
def gpu_resources(device: int) -> Any:
    """Return FAISS's scratch memory on a GPU, the same for all searches of a process."""
    return import_faiss().StandardGpuResources()


def similarity_chunks(queries: Tensor, gallery: Tensor) -> Iterator[Tensor]:
    """Yield the dot products of queries (Q, D) and gallery (G, D), some rows of (Q, G) at a time.

    A chunk takes ``CHUNK_BYTES`` at most, or one row.
    """
    rows = max(1, CHUNK_BYTES // (4 * max(1, len(gallery))))
    for chunk in torch.split(queries, rows):
        with full_precision(chunk.device):
            similarity = chunk @ gallery.T
        yield similarity


def _torch_finder(gallery: Tensor) -> Finder:
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    gallery = gallery.to(device)

    def find(queries: Tensor, k: int) -> Tensor:
        chunks = similarity_chunks(queries.to(device), gallery)
        found = torch.cat([similarity.topk(k).indices for similarity in chunks])
        return found.to(queries.device)

    return find


def require_faiss(purpose: str) -> Any:
    """Return the faiss module.

    Args:
        purpose: What needs it, the beginning of a sentence.

    Raises:
        ImportError: It is not installed.
        ValueError: Two FAISS wheels are installed.
    """
    faiss = import_faiss()
    if faiss is None:
        raise ImportError(
            f"{purpose} needs FAISS, which is not installed: pip install pplr-lightning[cpu], or "
            "pplr-lightning[gpu]"
        )
    return faiss


def import_faiss() -> Any:
    """Return the faiss module, None if it is not installed."""
    wheels = [name for name in _FAISS_WHEELS if any(metadata.distributions(name=name))]
    if len(wheels) > 1:
        # They own the same folder: the later one has overwritten parts of the earlier.
        raise ValueError(
            f"{' and '.join(wheels)} are both installed and overwrite each other; run "
            f"`pip uninstall {' '.join(wheels)}`, then install one of them"
        )
    try:
        return importlib.import_module("faiss")
    except ImportError:
        return None


@contextmanager
def full_precision(device: torch.device) -> Iterator[None]:
    """Keep autocast, TF32 and bf16 products out: their digits are too few to rank neighbours."""
    switches = precision_switches()
    before = [getattr(switch, name) for switch, name, _ in switches]
    try:
        for switch, name, exact in switches:
            setattr(switch, name, exact)
        with torch.autocast(device.type, enabled=False):
            yield
    finally:
        for (switch, name, _), value in zip(switches, before, strict=True):
            setattr(switch, name, value)


def precision_switches() -> list[tuple[Any, str, Any]]:
    """Return the switches of the process: an object, the name of its attribute, its exact value."""
    gpu = torch.backends.cuda.matmul
    if not hasattr(gpu, "fp32_precision"):  # before torch 2.9
        return [(gpu, "allow_tf32", False)]
    # Reading the old name fails once someone has set the new one.
    cpu = cast(Any, torch.backends.mkldnn).matmul
    return [(matmul, "fp32_precision", "ieee") for matmul in (gpu, cpu)]
