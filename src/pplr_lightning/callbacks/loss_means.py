"""Mean losses of an epoch, without waiting for the device."""

from __future__ import annotations

import torch
from torch import Tensor

from pplr_lightning.distributed import average_
from pplr_lightning.report.history import Row


class LossMeans:
    """Means of the losses over an epoch's steps, those before an interruption included.

    They are added up on the device, which is asked for the sums only where the epoch ends or is
    saved. Each step is averaged over the ranks at once, so that whenever a run is saved or stopped
    every rank has the same sums.
    """

    def __init__(self, row: Row) -> None:
        self.epoch = int(row["epoch"])
        self._before = dict(row)
        self._names: tuple[str, ...] = ()
        self._sums: Tensor | None = None
        self._steps = 0

    @property
    def iterations(self) -> float:
        """Steps of the epoch so far."""
        return self._before.get("iterations", 0.0) + self._steps

    def add(self, losses: dict[str, Tensor]) -> None:
        """Adds the losses of a step; a collective."""
        self._steps += 1
        if not losses:
            return
        values = torch.stack([value.detach().float() for value in losses.values()])
        average_([values])
        self._names = tuple(losses)
        self._sums = values if self._sums is None else self._sums + values

    def settle(self, row: Row) -> None:
        """Puts the means into the epoch's row."""
        if self._sums is None:
            return
        before = self._before.get("iterations", 0.0)
        for name, total in zip(self._names, self._sums.tolist(), strict=True):
            row[name] = (self._before.get(name, 0.0) * before + total) / self.iterations
