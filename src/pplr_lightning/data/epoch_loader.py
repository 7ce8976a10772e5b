"""Training batches of an epoch whose labels are made after Lightning has asked for them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from torch.utils.data import DataLoader

from pplr_lightning.data.images import TrainBatch


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
