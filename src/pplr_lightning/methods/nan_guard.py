"""Stops a run on a step that is not finite, without making the host wait for the device."""

from __future__ import annotations

import math
from typing import Any, NamedTuple, cast

import torch
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor

from pplr_lightning.distributed import all_gather_list, on_all_ranks
from pplr_lightning.lightning_internals import has_scaler, show_on_bar
from pplr_lightning.weights.checkpoints import newest_checkpoint


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


class NotFiniteError(FloatingPointError):
    """Ends a run on a step that is not finite, on all ranks alike.

    Args:
        message: With epoch, step and the part of the loss that broke.
        rank: Of this process; the command line has the first say the message.
    """

    def __init__(self, message: str, rank: int) -> None:
        super().__init__(message)
        self.rank = rank


class NaNGuard:
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

    def before_step(
        self,
        module: LightningModule,
        optimizer: torch.optim.Optimizer,
        losses: dict[str, Tensor],
    ) -> None:
        """Keeps a gradient that is not finite from the weights.

        All ranks stop where one's is not: alone it would leave the others waiting for it. With a
        gradient scaler (16-mixed) infinite gradients are in order; there the loss is read.
        A fused optimiser on a GPU skips the step itself, and the run stops at the next one: in
        between the host does not wait for the device.

        Args:
            module: Has the gradients.
            optimizer: About to step.
            losses: Scalars by name, of this step.

        Raises:
            NotFiniteError: As `check`.
        """
        trainer = module.trainer
        self.check(trainer)
        if has_scaler(trainer):
            finite = torch.stack(list(losses.values())).isfinite().all()
        else:  # a norm of infinity clips nothing
            finite = torch.nn.utils.clip_grad_norm_(module.parameters(), math.inf).isfinite()
        finite = on_all_ranks(finite)
        self.note(finite, losses, epoch=module.current_epoch, number=module.global_step)
        if skips_steps(optimizer, trainer):
            cast(Any, optimizer).found_inf = (~finite).float()
        else:
            self.check(trainer)

    def check(self, trainer: Trainer | None) -> None:
        """Shows the losses of the step that is held, and raises if it was not finite.

        Raises:
            NotFiniteError: It was not.
        """
        step = self.take()
        if step is None or trainer is None:
            return
        show_on_bar(trainer, step.losses)
        if step.finite:
            return
        broken = sorted(set(all_gather_list(step.broken)))
        broken = broken or ["the loss is finite, its gradient is not"]
        newest = newest_checkpoint(trainer)
        raise NotFiniteError(
            f"epoch {step.epoch}, step {step.number}: {', '.join(broken)}; lower "
            "optimizer.lr or use a wider trainer.precision, and go on from "
            + (f"the last good checkpoint, {newest}" if newest else "the start: no checkpoint yet"),
            trainer.global_rank,
        )


def skips_steps(optimizer: torch.optim.Optimizer, trainer: Trainer) -> bool:
    """Tells whether the optimiser leaves out a step on the device, where `found_inf` is 1.

    Torch's fused ones do, for the gradient scaler, which sets it itself.
    """
    fused = bool(getattr(optimizer, "_step_supports_amp_scaling", False))
    on_gpu = trainer.strategy.root_device.type == "cuda"
    return fused and on_gpu and not has_scaler(trainer)
