"""Batches that the dataset makes whole, on a GPU ahead of time."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import torch
from torch.utils.data import DataLoader

from pplr_lightning.data.images import EvalImages, TrainImages

T = TypeVar("T")


class ImageLoader(DataLoader[Any]):
    """Loads batches that the dataset makes whole; give it `collate_fn=whole`.

    Where they are made on a GPU, out of a cache, a thread is two batches ahead. It computes next to
    nothing there, so that workers would only have more to carry; on the CPU it would take from the
    training what it gives.
    """

    dataset: TrainImages | EvalImages

    def __iter__(self) -> Any:
        batches = super().__iter__()
        device = self.dataset.device
        return prefetched(batches, device) if device.type == "cuda" else batches


def whole(batch: T) -> T:
    """Leaves a batch as the dataset made it; a `collate_fn`."""
    return batch


def prefetched(batches: Iterable[T], device: torch.device) -> Iterator[T]:
    """Yields batches that a thread takes from `batches` ahead of time.

    Args:
        batches: Two are ready or in the making; what raises there is raised here, in its turn.
        device: That they are made on.
    """
    iterator = iter(batches)

    def enter() -> None:
        if device.type == "cuda":  # a new thread would talk to the first GPU
            torch.cuda.set_device(device)

    with ThreadPoolExecutor(1, "batches", initializer=enter) as thread:
        coming = deque(thread.submit(next, iterator, None) for _ in range(2))
        while (batch := coming.popleft().result()) is not None:
            coming.append(thread.submit(next, iterator, None))
            yield batch
