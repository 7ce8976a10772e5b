"""Exact nearest neighbours of L2-normalised features, by FAISS or torch."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import metadata
from typing import Any

import torch
from torch import Tensor

BACKENDS = ("auto", "faiss", "faiss-gpu", "torch")
CHUNK_BYTES = 2**28  # similarities held at once by the torch backend

_FAISS_WHEELS = ("faiss-cpu", "faiss-gpu", "faiss-gpu-cu11", "faiss-gpu-cu12")


@torch.no_grad()
def nearest_neighbors(features: Tensor, k: int, *, backend: str = "auto") -> Tensor:
    """Find the k most similar images of every image, by cosine similarity.

    The search is exact and in float32. Images of equal similarity stand in no fixed order, so
    a duplicate may stand before the image itself.

    Args:
        features: L2-normalised rows, (N, D).
        k: Number of neighbours, **the image itself included**, 1 <= k <= N.
        backend: ``faiss`` is FAISS on the GPU where there is one and the FAISS build can use it,
            else on the CPU; ``faiss-gpu`` insists on the GPU; ``torch`` needs no FAISS and uses
            the GPU if there is one; ``auto`` takes FAISS on the GPU, torch on the GPU, FAISS on
            the CPU or torch on the CPU, the first of them that is possible.

    Returns:
        Indices of the neighbours, nearest first, (N, k) int64, on the device of ``features``.

    Raises:
        ValueError: ``features`` are not 2-D, not finite or not normalised, ``k`` is out of range,
            or the backend is unknown or cannot run here.
    """
    check_features(features)
    check_count("k", k, len(features))
    engine = choose_engine(backend)
    rows = features.float().contiguous()
    if engine == "torch":
        found = _search_torch(rows.to(_search_device(rows)), k)
    else:
        found = _search_faiss(rows, k, on_gpu=engine == "faiss-gpu")
    return found.to(features.device)


def check_features(features: Tensor, name: str = "features") -> None:
    """Check that features are (N, D), finite and L2-normalised to 1e-3.

    Raises:
        ValueError: They are not.
    """
    if features.ndim != 2:
        raise ValueError(
            f"{name} must be 2-D, (N, D), got shape {tuple(features.shape)}; give one row per image"
        )
    norms = torch.linalg.vector_norm(features.detach().float(), dim=1)
    broken = (~norms.isfinite()).nonzero()
    if len(broken):
        raise ValueError(
            f"{name} must be finite, got NaN or Inf in {len(broken)} of {len(norms)} rows, first "
            f"in row {int(broken[0])}; check the model's weights and the images"
        )
    far = ((norms - 1).abs() > 1e-3).nonzero()
    if len(far):
        raise ValueError(
            f"{name} must be L2-normalised, got a norm of {float(norms[far[0]]):.4g} in row "
            f"{int(far[0])}; call torch.nn.functional.normalize({name}) first"
        )


def check_count(name: str, value: int, images: int) -> None:
    """Check that 1 <= value <= images.

    Raises:
        ValueError: It is not.
    """
    if value < 1:
        raise ValueError(f"{name} must be at least 1, got {value}; raise {name}")
    if value > images:
        raise ValueError(
            f"{name} must not exceed the number of images, got {name}={value} for {images} "
            f"images; lower {name} or add images"
        )


def check_neighbors(neighbors: Tensor, images: int, columns: int) -> None:
    """Check a search result that was handed over: (N, >= columns) indices of images.

    Raises:
        ValueError: The shape does not fit or an index is out of range.
    """
    if neighbors.ndim != 2 or len(neighbors) != images or neighbors.shape[1] < columns:
        raise ValueError(
            f"neighbors must be ({images}, {columns} or more), got shape "
            f"{tuple(neighbors.shape)}; search the same features with k={columns} or more"
        )
    low, high = neighbors.aminmax()
    if low < 0 or high >= images:
        raise ValueError(
            f"neighbors must hold indices 0 to {images - 1}, got {int(low)} to {int(high)}; "
            "pass the result of nearest_neighbors on the same features"
        )


def similarity_chunks(queries: Tensor, gallery: Tensor) -> Iterator[Tensor]:
    """Yield the dot products of queries (Q, D) and gallery (G, D), some rows of (Q, G) at a time.

    A chunk takes ``CHUNK_BYTES`` at most, or one row.
    """
    rows = max(1, CHUNK_BYTES // (4 * len(gallery)))
    for chunk in torch.split(queries, rows):
        with _full_precision(chunk.device):
            similarity = chunk @ gallery.T
        yield similarity


def choose_engine(backend: str) -> str:
    """Check that a backend of `nearest_neighbors` can run here, and name what will search.

    Args:
        backend: ``auto``, ``faiss``, ``faiss-gpu`` or ``torch``.

    Returns:
        ``faiss-gpu``, ``faiss`` (on the CPU) or ``torch`` (on the GPU if there is one).

    Raises:
        ValueError: The backend is unknown or cannot run here, or two FAISS wheels are installed.
    """
    if backend not in BACKENDS:
        raise ValueError(f"backend must be one of {', '.join(BACKENDS)}, got {backend!r}")
    if backend == "torch":
        return "torch"
    faiss = _import_faiss()
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
    if faiss is None and backend == "faiss":
        raise ValueError(
            "backend='faiss' cannot run: FAISS is not installed; install pplr-lightning[cpu] or "
            "pplr-lightning[gpu], or use backend='torch'"
        )
    if faiss is None or (gpu and backend == "auto"):
        return "torch"
    return "faiss"


def _import_faiss() -> Any:
    """Return the faiss module, None if it is not installed."""
    wheels = [name for name in _FAISS_WHEELS if _is_installed(name)]
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


def _is_installed(distribution: str) -> bool:
    try:
        metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return False
    return True


def _search_device(features: Tensor) -> torch.device:
    """Return the features' own GPU, else this process's GPU, else the features' device."""
    if features.is_cuda or not torch.cuda.is_available():
        return features.device
    return torch.device("cuda", torch.cuda.current_device())


def _search_faiss(features: Tensor, k: int, *, on_gpu: bool) -> Tensor:
    faiss = _import_faiss()
    array = features.detach().cpu().numpy()
    metric = faiss.METRIC_INNER_PRODUCT
    if on_gpu:
        device = _search_device(features).index
        resources = faiss.StandardGpuResources()
        _, found = faiss.knn_gpu(resources, array, array, k, metric=metric, device=device)
    else:
        # Unlike an index, `knn` does not copy the features.
        _, found = faiss.knn(array, array, k, metric=metric)
    return torch.from_numpy(found)


def _search_torch(features: Tensor, k: int) -> Tensor:
    return torch.cat([row.topk(k).indices for row in similarity_chunks(features, features)])


@contextmanager
def _full_precision(device: torch.device) -> Iterator[None]:
    """Keep autocast and TF32 out: their three digits are too few to rank neighbours."""
    switches = torch.backends.cuda.matmul
    # torch 2.9 renamed the switch; reading the old name fails once someone has set the new one.
    new = hasattr(switches, "fp32_precision")
    name, exact = ("fp32_precision", "ieee") if new else ("allow_tf32", False)
    before = getattr(switches, name)
    setattr(switches, name, exact)
    try:
        with torch.autocast(device.type, enabled=False):
            yield
    finally:
        setattr(switches, name, before)
