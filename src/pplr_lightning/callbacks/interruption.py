"""Leaving on SIGTERM with a checkpoint, and leaving no process behind."""

from __future__ import annotations

import signal
import subprocess
import threading
import time
from pathlib import Path
from types import FrameType
from typing import Any

from lightning.fabric.plugins.environments import SLURMEnvironment
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities.exceptions import SIGTERMException

from pplr_lightning.callbacks.shared import run_folder
from pplr_lightning.lightning_internals import started_processes

GRACE = 5.0  # seconds for the other processes of a job that broke to say why they end


class Interrupted(SIGTERMException):
    """Ends a run after SIGTERM, as `SystemExit` with the code 143 (128 + SIGTERM) on rank 0.

    The other ranks leave with 0: Lightning's launcher kills all processes at once when one of
    those that it started leaves with another code.

    Args:
        checkpoint: From which the run can go on; None where nothing was trained yet.
        rank: Of this process.
    """

    def __init__(self, checkpoint: Path | None, rank: int) -> None:
        super().__init__(128 + signal.SIGTERM if rank == 0 else 0)
        self.checkpoint = checkpoint
        self.rank = rank


class Interruption(Callback):
    """On SIGTERM, saves `interrupted.ckpt` beside the run's other checkpoints and ends the run.

    It does so where a run can be taken up exactly: after the training step in which the signal
    came, or where it came in validation, at the epoch's end. Labelling counts as a part of an
    epoch's first step. All ranks leave at the same place, whichever of them got the signal.

    Lightning's own handler is replaced in `fit`: it sends a message to the other ranks from within
    the handler, which meets whatever collective they are in, and the job hangs. Its handler of
    SLURM's requeue signal stays, but is called at such a place instead of in the middle of a step.
    """

    def __init__(self) -> None:
        self._terminated = False
        self._requeued = False
        self._requeue: Any = None  # Lightning's handler

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Forgets the signals of another run."""
        self._terminated = self._requeued = False

    def on_sanity_check_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Takes the signals over from Lightning, which has just registered its handlers."""
        self._take_over()

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Takes the signals over; leaves where SIGTERM came before training."""
        self._take_over()
        if _on_any_rank(trainer, self._terminated):
            started_from = trainer.ckpt_path
            raise Interrupted(Path(started_from) if started_from else None, trainer.global_rank)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, *args: Any, **kwargs: Any
    ) -> None:
        """Answers a signal that came in the step."""
        if _on_any_rank(trainer, self._terminated or self._requeued):
            self._answer(trainer)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Answers a signal that came in validation."""
        if _on_any_rank(trainer, self._terminated or self._requeued):
            for callback in trainer.checkpoint_callbacks:  # whose turn would be after this
                callback.on_train_epoch_end(trainer, pl_module)
            self._answer(trainer)

    def on_exception(
        self, trainer: Trainer, pl_module: LightningModule, exception: BaseException
    ) -> None:
        """Ends the processes that Lightning started, lest they wait for this one for ever."""
        children = started_processes(trainer)
        if children:
            threading.Thread(target=_end, args=(children,)).start()

    def _take_over(self) -> None:
        if threading.current_thread() is not threading.main_thread():
            return  # only there can handlers be set
        signal.signal(signal.SIGTERM, self._note)
        if SLURMEnvironment.detect():
            handler = signal.getsignal(signal.SIGUSR1)
            if callable(handler) and handler != self._note:
                self._requeue = handler
                signal.signal(signal.SIGUSR1, self._note)

    def _note(self, signum: int, frame: FrameType | None) -> None:
        # Nothing else: a handler runs in the middle of anything.
        if signum == signal.SIGTERM:
            self._terminated = True
        else:
            self._requeued = True

    def _answer(self, trainer: Trainer) -> None:
        if _on_any_rank(trainer, self._requeued):
            self._requeued = False
            self._requeue(signal.SIGUSR1, None)
        if _on_any_rank(trainer, self._terminated):
            checkpoint = run_folder(trainer) / "checkpoints" / "interrupted.ckpt"
            trainer.save_checkpoint(checkpoint)
            raise Interrupted(checkpoint, trainer.global_rank)


def _on_any_rank(trainer: Trainer, decision: bool) -> bool:
    return trainer.strategy.reduce_boolean_decision(decision, all=False)


def _end(children: list[subprocess.Popen[bytes]]) -> None:
    deadline = time.monotonic() + GRACE
    for child in children:
        try:
            child.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            child.kill()
