"""Whether the last step was finite, told without making the host wait for the device."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor


class Step(NamedTuple):
    """A step of the training, as the host knows it afterwards.

    Attributes:
        epoch: Of the step.
        number: Optimiser steps before it.
        losses: By name.
        finite: Whether the gradient was.
    """

    epoch: int
    number: int
    losses: dict[str, float]
    finite: bool

    @property
    def broken(self) -> list[str]:
        """Says which losses were not finite."""
        return [f"{n} is {v}" for n, v in self.losses.items() if not math.isfinite(v)]


class StepWatch:
    """Holds the losses of the last step and whether its gradient was finite, until they are asked.

    On a GPU they are copied to the host beside its work. Asked a step later, when the device has
    the next one to do already, it does not run dry while the host waits for them.
    """

    def __init__(self) -> None:
        self._place: tuple[int, int] | None = None  # epoch and number of the step that is held
        self._names: tuple[str, ...] = ()
        self._values = torch.empty(0)
        self._copied: torch.cuda.Event | None = None

    def note(self, finite: Tensor, losses: dict[str, Tensor], *, epoch: int, number: int) -> None:
        """Holds a step in place of the one before it.

        Args:
            finite: Whether the gradient is, a scalar on the device.
            losses: Scalars by name, on the device.
            epoch: Of the step.
            number: Optimiser steps before it.
        """
        self._place, self._names = (epoch, number), tuple(losses)
        values = torch.stack([*(v.double() for v in losses.values()), finite.double()])
        if values.is_cuda:
            if self._values.shape != values.shape or not self._values.is_pinned():
                self._values = torch.empty_like(values, device="cpu", pin_memory=True)
            self._values.copy_(values, non_blocking=True)
            self._copied = torch.cuda.Event()
            self._copied.record()
        else:
            self._values, self._copied = values, None

    def take(self) -> Step | None:
        """Returns the step that is held, once; None where there is none."""
        if self._place is None:
            return None
        if self._copied is not None:
            self._copied.synchronize()
        *losses, finite = self._values.tolist()
        (epoch, number), self._place = self._place, None
        return Step(epoch, number, dict(zip(self._names, losses, strict=True)), bool(finite))
