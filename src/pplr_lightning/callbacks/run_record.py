"""The history of a run, a line per epoch, and the report at its end."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities import rank_zero_info, rank_zero_warn
from lightning.pytorch.utilities.exceptions import SIGTERMException

from pplr_lightning.atomic_write import write_whole
from pplr_lightning.callbacks import environment
from pplr_lightning.callbacks.loss_means import LossMeans
from pplr_lightning.callbacks.progress import say
from pplr_lightning.callbacks.pseudo_labeling import PseudoLabeling
from pplr_lightning.callbacks.retrieval_evaluation import RetrievalEvaluation
from pplr_lightning.callbacks.run_folder import run_folder
from pplr_lightning.distributed import log_own
from pplr_lightning.report import REPORT, history, write_report
from pplr_lightning.report.history import BEFORE, Row, describe_epoch

C = TypeVar("C", bound=Callback)


class RunRecord(Callback):
    """Keeps a run's history in its folder, prints a line per epoch and writes `report.html`.

    `history.csv` has a row per epoch, whatever the logger: mean losses, labels, evaluation,
    learning rate and the seconds of each stage (`time/<stage>`, on the clock of the first
    process). Checkpoints hold the rows, so that a run which goes on has those of all its parts.
    `environment.json` tells versions and machine.

    Args:
        report: Write `report.html` at the end of `fit`, and where SIGTERM or Ctrl-C ends it.
    """

    def __init__(self, *, report: bool = True) -> None:
        self.report = report
        self.rows: dict[int, Row] = {}  # by epoch
        self._means: LossMeans | None = None  # of the epoch that this process trains
        self._mark = 0.0  # clock at the end of the last stage

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Forgets another run's history."""
        if stage == "fit":
            self.rows, self._means = {}, None

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Writes `environment.json`."""
        if _writes(trainer):
            with _harmless(environment.FILE):
                text = json.dumps(environment.describe_environment(trainer), indent=2) + "\n"
                write_whole(run_folder(trainer) / environment.FILE, text)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Starts the clock; a run that goes on in mid-epoch comes by here only."""
        self._start_clock()
        evaluation = _find(trainer, RetrievalEvaluation)
        if evaluation is not None:  # which drops those of other features that a checkpoint had
            kept = {int(values["epoch"]) for values in evaluation.history}
            for epoch in self.rows.keys() - kept:
                self.rows[epoch] = _without_evaluation(self.rows[epoch])

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Starts the clock."""
        self._start_clock()

    def _start_clock(self) -> None:
        self._means, self._mark = None, time.perf_counter()

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Takes down what the epoch begins with, and the time that was waited for the batch."""
        row = self._row(trainer)
        if self._means is None:
            self._begin_epoch(trainer, row)
        self._take_time(row, "training")

    def _begin_epoch(self, trainer: Trainer, row: Row) -> None:
        self._means = LossMeans(row)
        labeling = _find(trainer, PseudoLabeling)
        if labeling is not None:
            self._mark = max(self._mark, labeling.stages.ended)
            for name, value in labeling.report.items():
                row.setdefault(name, value)  # an epoch that was taken up has them
        row["lr"] = float(trainer.optimizers[0].param_groups[0]["lr"])
        self._write_history(trainer)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, *args: Any, **kwargs: Any
    ) -> None:
        """Adds up the step's losses and time; the device is waited for in the last step only."""
        row = self._row(trainer)
        if self._means is not None:
            self._means.add(getattr(pl_module, "losses", {}))
            row["iterations"] = self._means.iterations
        row["step"] = float(trainer.global_step)
        if trainer.is_last_batch and pl_module.device.type == "cuda":
            torch.cuda.synchronize(pl_module.device)
        # Not what other callbacks did before the step, such as drawing figures.
        self._mark = max(self._mark, getattr(pl_module, "step_started", 0.0))
        self._take_time(row, "training")

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Starts the clock of the evaluation."""
        self._mark = time.perf_counter()

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Takes down an evaluation, that before training too."""
        evaluation = _find(trainer, RetrievalEvaluation)
        epoch = BEFORE if trainer.sanity_checking else trainer.current_epoch
        if trainer.state.fn != TrainerFn.FITTING or evaluation is None or not evaluation.history:
            return
        values = dict(evaluation.history[-1])
        if values.pop("epoch") == epoch:
            row = self._row(trainer)
            row.update({f"val/{name}": value for name, value in values.items()})
            self._take_time(row, "evaluation")

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Logs the times, writes the row and prints the epoch's line."""
        row = self._row(trainer)
        self._settle()
        row["finished"] = 1.0
        names = [name for name in ("time/training", "time/evaluation") if name in row]
        log_own(pl_module, {name: row[name] for name in names})
        self._write_history(trainer)
        say(trainer, describe_epoch(row))

    def on_exception(
        self, trainer: Trainer, pl_module: LightningModule, exception: BaseException
    ) -> None:
        """Writes what there is, where the run was told to end."""
        if isinstance(exception, (SIGTERMException, KeyboardInterrupt)) and self.rows:
            self._settle()
            self._write_history(trainer)
            self._write_report(trainer)

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Writes the report, when all other callbacks have written their files."""
        if stage == "fit":
            self._write_report(trainer)

    def state_dict(self) -> dict[str, Any]:
        """Keeps the rows, the unfinished one too, for a run that goes on."""
        self._settle()
        return {"rows": [dict(row) for row in self.rows.values()]}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Takes the rows of a checkpoint."""
        self.rows = {int(row["epoch"]): dict(row) for row in state_dict["rows"]}

    def _row(self, trainer: Trainer) -> Row:
        epoch = BEFORE if trainer.sanity_checking else trainer.current_epoch
        return self.rows.setdefault(epoch, {"epoch": float(epoch)})

    def _settle(self) -> None:
        """Puts the mean losses of the epoch in training into its row."""
        if self._means is not None:
            self._means.settle(self.rows[self._means.epoch])

    def _take_time(self, row: Row, stage: str) -> None:
        now = time.perf_counter()
        row[f"time/{stage}"] = row.get(f"time/{stage}", 0.0) + now - self._mark
        self._mark = now

    def _write_history(self, trainer: Trainer) -> None:
        if _writes(trainer):
            with _harmless(history.FILE):
                history.write_history(run_folder(trainer) / history.FILE, self.rows.values())

    def _write_report(self, trainer: Trainer) -> None:
        if self.report and _writes(trainer):
            with _harmless(REPORT):
                rank_zero_info(f"report: {write_report(run_folder(trainer))}")


@contextmanager
def _harmless(file: str) -> Iterator[None]:
    """Turns an error into a warning: hours of training must not end by what is told of them."""
    try:
        yield
    except Exception as error:
        rank_zero_warn(f"{file} was not written, {type(error).__name__}: {error}")


def _without_evaluation(row: Row) -> Row:
    return {name: value for name, value in row.items() if not name.startswith("val/")}


def _writes(trainer: Trainer) -> bool:
    return trainer.is_global_zero and not getattr(trainer, "fast_dev_run", False)


def _find(trainer: Trainer, kind: type[C]) -> C | None:
    callbacks = trainer.callbacks  # type: ignore[attr-defined]
    return next((callback for callback in callbacks if isinstance(callback, kind)), None)
