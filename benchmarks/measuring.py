"""What the benchmarks share: the features they draw, and CPU time and memory of a call."""

from __future__ import annotations

import ctypes
import gc
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple, TypeVar

import torch
from torch import Tensor
from torch.nn.functional import normalize

T = TypeVar("T")


class Cost(NamedTuple):
    """CPU seconds of all threads, and the peak of memory in MiB beyond what was held before."""

    seconds: float
    memory: float


def measure(work: Callable[[], T]) -> tuple[T, Cost]:
    """Calls `work` and takes its cost. Memory is read from /proc: Linux only."""
    forget_peak()
    before, seconds = memory("VmRSS"), time.process_time()
    result = work()
    return result, Cost(time.process_time() - seconds, memory("VmHWM") - before)


def forget_peak() -> None:
    """Lets the most memory of this process, `VmHWM`, start anew from what it holds now."""
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)  # memory kept from earlier calls would hide what comes
    Path("/proc/self/clear_refs").write_text("5")


def memory(name: str) -> float:
    """Reads a value of this process, in MiB: `VmRSS` is held now, `VmHWM` was the most."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{name}:")) / 2**10


class Images(NamedTuple):
    """Features (N, D), identities (N,) and cameras (N,)."""

    features: Tensor
    ids: Tensor
    cameras: Tensor


def draw(images: int, ids: int, cameras: int, dim: int, *, noise: float, seed: int = 0) -> Images:
    """Draws features around one centre per identity, shifted by camera.

    Args:
        images: N.
        ids: Identities, each image's drawn at random.
        cameras: Cameras, likewise.
        dim: D.
        noise: Length of an image's own part against that of its identity; it varies from half to
            one and a half of this between images, so that some are hard.
        seed: Another one draws other features.
    """
    generator = torch.Generator().manual_seed(seed)
    owner = torch.randint(ids, (images,), generator=generator)
    camera = torch.randint(cameras, (images,), generator=generator)
    features = torch.randn(images, dim, generator=generator)
    features *= noise * (0.5 + torch.rand(images, 1, generator=generator))
    features += torch.randn(ids, dim, generator=generator)[owner]
    features += 0.5 * torch.randn(cameras, dim, generator=generator)[camera]
    return Images(normalize(features, dim=1), owner, camera)
