"""Batches that the dataset makes whole, on a GPU ahead of time; and those of an epoch."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import torch
from torch.utils.data import DataLoader

from pplr_lightning.data.images import EvalImages, TrainBatch, TrainImages

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


class EpochLoader:
    """An epoch's training batches, laid out only when the first of them is asked for.

    Lightning asks for the iterator of the training loader before the hooks in which labels are
    made, and an ordinary `DataLoader` with workers draws its first indices right then, from labels
    that do not exist yet (epoch 0) or are a whole epoch old. This one's generator starts after
    those hooks in every case, resuming included, and needs no flag of the Trainer.

    In an epoch that a checkpoint broke off, it gives the batches that were left. The Trainer's own
    count of batches says which, so that there is no second count to go astray; the two methods for
    a state are there because Lightning takes a loader without them for one that cannot go on.

    Args:
        build: Makes the loader of the current epoch.
        iterations: Batches per epoch.
    """

    def __init__(self, build: Callable[[], DataLoader[TrainBatch]], iterations: int) -> None:
        self.build = build
        self.iterations = iterations

    def __len__(self) -> int:
        return self.iterations

    def __iter__(self) -> Iterator[TrainBatch]:
        yield from self.build()

    def state_dict(self) -> dict[str, Any]:
        """Keeps nothing: the Trainer counts the batches."""
        return {}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Takes nothing."""
