"""Nearest neighbours of L2-normalised features, by FAISS or torch."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import metadata
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pplr_lightning.functional.compiled import compiled_sum, over_rows
from pplr_lightning.functional.sharding import Share

BACKENDS = ("auto", "faiss", "faiss-gpu", "torch")
CHUNK_BYTES = 2**28  # similarities held at once by the torch backend
MARGIN = 8  # neighbours searched beyond k, among which float32 may have chosen wrongly

_FAISS_WHEELS = ("faiss-cpu", "faiss-gpu", "faiss-gpu-cu11", "faiss-gpu-cu12")


@torch.no_grad()
def nearest_neighbors(features: Tensor, k: int, *, backend: str = "auto") -> Tensor:
    """Find the k most similar images of every image, by cosine similarity.

    The search is exact. It runs in float32, with a few neighbours to spare; those are ordered by
    their dot product in float64, the lower index first among equals, so that backends agree. An
    image's duplicates of lower index stand before the image itself.

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
    found = search(features, k, Share(len(features)), backend=backend)
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


def search(features: Tensor, k: int, share: Share, *, backend: str = "auto") -> Tensor:
    """Find the k most similar of all N images for this process's images.

    Args:
        features: L2-normalised rows of this process, (n, D).
        k: Number of neighbours, the image itself included, 1 <= k <= N.
        share: The rows of this process among the N.
        backend: As for `nearest_neighbors`.

    Returns:
        Indices in 0 to N - 1, nearest first, (n, k) int64 on the CPU.
    """
    engine = choose_engine(backend)
    rows = features.float().contiguous()
    queries = rows.cpu()
    indices = torch.empty(len(rows), 0, dtype=torch.int64)
    similarity = torch.empty(len(rows), 0, dtype=torch.float64)
    for start, block in share.blocks(queries):
        found = _search_block(engine, rows, block, min(k + MARGIN, len(block)))
        similarity = torch.cat([similarity, _similarity_of(queries, block, found)], dim=1)
        indices = torch.cat([indices, found + start], dim=1)
        indices, similarity = _first(indices, similarity, k)
    return indices


def _search_block(engine: str, queries: Tensor, block: Tensor, k: int) -> Tensor:
    if engine == "torch":
        device = _search_device(queries)
        return _search_torch(queries.to(device), block.to(device), k).cpu()
    return _search_faiss(queries, block, k, on_gpu=engine == "faiss-gpu")


def _similarity_of(queries: Tensor, block: Tensor, found: Tensor) -> Tensor:
    """Return the float64 dot products of each query with what was found for it, (n, k)."""
    indptr = np.arange(0, found.numel() + 1, found.shape[1])
    columns = found.numpy().ravel()
    return torch.from_numpy(entry_dots(queries, block, indptr, columns)).view_as(found)


def _first(indices: Tensor, similarity: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Keep the k most similar of each row, the lower index first among equals."""
    indices, order = indices.sort(dim=1)
    similarity, order = similarity.gather(1, order).sort(dim=1, descending=True, stable=True)
    return indices.gather(1, order)[:, :k], similarity[:, :k]


def entry_dots(
    rows: Tensor, others: Tensor, indptr: NDArray[Any], columns: NDArray[Any]
) -> NDArray[np.float64]:
    """Return the dot products of rows (n, D) with the others (m, D) that each row lists.

    In float64, and so that equal pairs give equal products to the last bit.

    Args:
        rows: On the CPU.
        others: On the CPU.
        indptr: Where each row's list begins and ends in ``columns``, (n + 1,).
        columns: Rows of ``others``, (E,).

    Returns:
        Products, (E,).
    """
    left, right = (tensor.detach().float().contiguous().numpy() for tensor in (rows, others))
    products = np.empty(len(columns))

    def work(start: int, stop: int) -> None:
        _entry_dots(left, right, indptr, columns, start, stop, products)

    over_rows(work, len(left), chunk=256)
    return products


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


def _search_faiss(queries: Tensor, block: Tensor, k: int, *, on_gpu: bool) -> Tensor:
    faiss = _import_faiss()
    rows, others = queries.detach().cpu().numpy(), block.numpy()
    metric = faiss.METRIC_INNER_PRODUCT
    if on_gpu:
        device = _search_device(queries).index
        resources = faiss.StandardGpuResources()
        _, found = faiss.knn_gpu(resources, rows, others, k, metric=metric, device=device)
    else:
        # Unlike an index, `knn` does not copy the features.
        _, found = faiss.knn(rows, others, k, metric=metric)
    return torch.from_numpy(found)


def _search_torch(queries: Tensor, block: Tensor, k: int) -> Tensor:
    return torch.cat([row.topk(k).indices for row in similarity_chunks(queries, block)])


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


@compiled_sum
def _entry_dots(
    rows: NDArray[np.float32],
    others: NDArray[np.float32],
    indptr: NDArray[Any],
    columns: NDArray[Any],
    start: int,
    stop: int,
    products: NDArray[np.float64],
) -> None:
    for row in range(start, stop):
        left = rows[row]
        for entry in range(indptr[row], indptr[row + 1]):
            right = others[columns[entry]]
            total = 0.0
            for place in range(len(left)):
                total += np.float64(left[place]) * np.float64(right[place])
            products[entry] = total
