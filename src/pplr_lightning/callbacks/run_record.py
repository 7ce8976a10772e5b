"""A run's record: its history as a file, a line per epoch, and the report at its end."""

from __future__ import annotations

import json
import time
from typing import Any

import torch
import yaml
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_info
from lightning.pytorch.utilities.exceptions import SIGTERMException
from torch import Tensor

from pplr_lightning.atomic_write import write_whole
from pplr_lightning.callbacks import environment
from pplr_lightning.callbacks.progress import say
from pplr_lightning.callbacks.pseudo_labeling import PseudoLabeling
from pplr_lightning.callbacks.shared import History, find, harmless, run_folder, writes
from pplr_lightning.distributed import average_, log_own
from pplr_lightning.methods.base import ReIDModule
from pplr_lightning.report import history
from pplr_lightning.report.history import Row, describe_epoch


class RunRecord(Callback):
    """Keeps a run's history in its folder, prints a line per epoch and writes `report.html`.

    `history.csv` has a row per epoch, whatever the logger: mean losses, labels, evaluation,
    learning rate and the seconds of each stage (`time/<stage>`, on the clock of the first
    process). Checkpoints hold the rows, so that a run which goes on has those of all its parts.
    `environment.json` tells versions and machine, `config.yaml` the options: on the command line
    all of them, of a script of one's own those that its objects keep.

    Args:
        report: Write `report.html` at the end of `fit`, and where SIGTERM or Ctrl-C ends it.
    """

    def __init__(self, *, report: bool = True) -> None:
        self.report = report
        self._history = History()
        self._mark = 0.0  # clock at the end of the last stage

    @property
    def rows(self) -> list[Row]:
        """What is told of each epoch; epoch -1 is before training."""
        return self._history.rows

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Finds the run's history."""
        self._history = History.of(trainer)

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Writes `environment.json`; of a script of one's own the options, too."""
        if writes(trainer):
            with harmless(f"{environment.FILE} was not written"):
                text = json.dumps(environment.describe_environment(trainer), indent=2) + "\n"
                write_whole(run_folder(trainer) / environment.FILE, text)
            # The command line's own callback writes all options.
            by_command = any(hasattr(one, "config_filename") for one in trainer.callbacks)  # type: ignore[attr-defined]
            if not by_command and isinstance(pl_module, ReIDModule):
                with harmless(f"{environment.CONFIG} was not written"):
                    options = environment.describe_options(trainer, pl_module)
                    text = yaml.safe_dump(options, sort_keys=False)
                    write_whole(run_folder(trainer) / environment.CONFIG, text)
                    for logger in trainer.loggers:
                        logger.log_hyperparams(options)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Starts the clock; a run that goes on in mid-epoch comes by here only."""
        self._mark = time.perf_counter()
        self._write_history(trainer)

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Starts the clock."""
        self._mark = time.perf_counter()

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Takes down what the epoch begins with, and the time that was waited for the batch."""
        row = self._history.row(trainer)
        if "lr" not in row:
            labeling = find(trainer, PseudoLabeling)
            if labeling is not None:
                self._mark = max(self._mark, labeling.stages.ended)
            row["lr"] = float(trainer.optimizers[0].param_groups[0]["lr"])
            self._write_history(trainer)
        self._take_time(row)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, *args: Any, **kwargs: Any
    ) -> None:
        """Counts the step's losses and time; the device is waited for in the last step only."""
        row = self._history.row(trainer)
        add_step(row, getattr(pl_module, "losses", {}))
        row["step"] = trainer.global_step
        if trainer.is_last_batch and pl_module.device.type == "cuda":
            torch.cuda.synchronize(pl_module.device)
        # Not what other callbacks did before the step, such as drawing figures.
        self._mark = max(self._mark, getattr(pl_module, "step_started", 0.0))
        self._take_time(row)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Starts the clock: an evaluation is no time of training."""
        self._mark = time.perf_counter()

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Logs the times, writes the row and prints the epoch's line."""
        row = self._history.row(trainer)
        row["finished"] = 1.0
        names = [name for name in ("time/training", "time/evaluation") if name in row]
        log_own(pl_module, {name: row[name] for name in names})
        self._write_history(trainer)
        say(trainer, describe_epoch(self.rows[-1]))

    def on_exception(
        self, trainer: Trainer, pl_module: LightningModule, exception: BaseException
    ) -> None:
        """Writes what there is, where the run was told to end."""
        if isinstance(exception, (SIGTERMException, KeyboardInterrupt)) and self.rows:
            self._write_history(trainer)
            self._write_report(trainer)

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Writes the report, when all other callbacks have written their files."""
        if stage == "fit":
            self._write_report(trainer)

    def _take_time(self, row: Row) -> None:
        now = time.perf_counter()
        row["time/training"] = row.get("time/training", 0.0) + now - self._mark
        self._mark = now

    def _write_history(self, trainer: Trainer) -> None:
        if writes(trainer) and self.rows:
            with harmless(f"{history.FILE} was not written"):
                history.write_history(run_folder(trainer) / history.FILE, self.rows)

    def _write_report(self, trainer: Trainer) -> None:
        from pplr_lightning.report.run_page import REPORT, write_report  # with its templates

        if self.report and writes(trainer):
            with harmless(f"{REPORT} was not written"):
                rank_zero_info(f"report: {write_report(run_folder(trainer))}")


def add_step(row: dict[str, Any], losses: dict[str, Tensor]) -> None:
    """Counts a step into an epoch's mean losses, without waiting for the device; a collective.

    Each step is averaged over the ranks at once, so that whenever a run is saved or stopped every
    rank has the same means, and one that goes on counts from there.
    """
    row["iterations"] = row.get("iterations", 0) + 1
    if losses:
        values = torch.stack([value.detach().float() for value in losses.values()])
        average_([values])
        for name, value in zip(losses, values, strict=True):
            row[name] = value + (row.get(name, 0.0) - value) * (1 - 1 / row["iterations"])
