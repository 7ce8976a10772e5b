"""What `epoch.py` has a Trainer do beside the training: time the pure step, and write a trace."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer

WARM_UP = 3  # steps that are not measured


def synchronize(device: torch.device) -> None:
    """Waits until the device has done all that it was told."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


class PureStep(Callback):
    """Repeats forward, backward and optimiser on one batch that lies on the device.

    After the training, so that it changes nothing that is measured or saved: without loader,
    loggers, callbacks and Lightning's loops, what is left is the arithmetic of a step.

    Args:
        steps: Steps that are measured.

    Attributes:
        seconds: Of one step.
    """

    def __init__(self, steps: int = 20) -> None:
        self.steps = steps
        self.seconds = 0.0
        self._batch: Any = None

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Keeps the batch, as it has come to the device."""
        self._batch = batch

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Takes the time."""
        pl_module.log_losses = lambda losses, batch_size: None
        pl_module.train()
        with torch.inference_mode(False), torch.enable_grad():
            for _ in range(WARM_UP):
                self._step(trainer)
            synchronize(pl_module.device)
            start = time.perf_counter()
            for _ in range(self.steps):
                self._step(trainer)
            synchronize(pl_module.device)
        self.seconds = (time.perf_counter() - start) / self.steps

    def _step(self, trainer: Trainer) -> None:
        (optimizer,) = trainer.optimizers
        optimizer.zero_grad()
        trainer.strategy.training_step(self._batch, 0).backward()
        optimizer.step()


class Trace(Callback):
    """Writes what ran when, for chrome://tracing or ui.perfetto.dev, of the last epoch.

    Args:
        path: Of the file.
        steps: Training steps that are recorded, from the second of the epoch; 0 records the whole
            epoch, with the label stage before it and the evaluation after it.
    """

    def __init__(self, path: str, steps: int = 5) -> None:
        self.path = Path(path)
        self.steps = steps
        self._profile: Any = None

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begins the record of an epoch."""
        if not self.steps and self._is_last(trainer):
            self._begin(pl_module)

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Begins the record of steps."""
        if self.steps and batch_idx == 1 and self._is_last(trainer):
            self._begin(pl_module)

    def on_train_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Ends the record of steps."""
        if self.steps and batch_idx == self.steps:
            self._end(pl_module)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Ends the record of an epoch, or of steps where the epoch had fewer."""
        self._end(pl_module)

    def _is_last(self, trainer: Trainer) -> bool:
        return trainer.current_epoch + 1 == trainer.max_epochs

    def _begin(self, module: LightningModule) -> None:
        activities = [torch.profiler.ProfilerActivity.CPU]
        if module.device.type == "cuda":
            activities.append(torch.profiler.ProfilerActivity.CUDA)
        self._profile = torch.profiler.profile(activities=activities)
        self._profile.start()

    def _end(self, module: LightningModule) -> None:
        if self._profile is not None:
            synchronize(module.device)
            self._profile.stop()
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._profile.export_chrome_trace(str(self.path))
            self._profile = None
