"""Query-to-gallery evaluation in fit, validate and test."""

from __future__ import annotations

import json
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_only, rank_zero_warn
from rich.console import Console
from rich.table import Table
from torch import Tensor

from pplr_lightning.callbacks.compilation import compile_before_work
from pplr_lightning.callbacks.progress import show_stage
from pplr_lightning.callbacks.run_folder import run_folder
from pplr_lightning.data import EvalBatch
from pplr_lightning.distributed import all_gather_list
from pplr_lightning.metrics import ReIDRetrieval


class RetrievalEvaluation(Callback):
    """Logs `val/mAP`, `val/mINP`, `val/rank-k` (or `test/...`) of the images evaluated.

    In `fit` the whole evaluation also runs before training, as Lightning's sanity check, so that
    what training brought can be told. At the end a table shows the first, the best and the last
    epoch, and `summary.json` in the run's folder holds all of them. Best is best on the evaluation
    set itself, and so no result to publish: the last is.

    Args:
        topk: Ranks of the CMC to report.
        before_training: Evaluate before training too.
    """

    def __init__(self, *, topk: tuple[int, ...] = (1, 5, 10), before_training: bool = True) -> None:
        self.metric = ReIDRetrieval(topk=tuple(topk))
        self.before_training = before_training
        self.history: list[dict[str, float]] = []  # by epoch; epoch -1 is before training

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Compiles; lets the sanity check see every image where a first evaluation is wanted."""
        compile_before_work()
        self.metric.to(pl_module.device)
        if (
            stage == "fit"
            and self._wants_first(trainer)
            and not getattr(trainer, "fast_dev_run", False)
        ):
            trainer.num_sanity_val_steps = float("inf")

    def _wants_first(self, trainer: Trainer) -> bool:
        # A run that goes on from a checkpoint has had its first evaluation.
        return self.before_training and trainer.ckpt_path is None

    def on_validation_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Forgets the last evaluation's features."""
        self.metric.reset()
        self.metric.to(pl_module.device)

    on_test_epoch_start = on_validation_epoch_start

    def on_validation_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: EvalBatch,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Takes a batch's features."""
        self._update(outputs, batch)

    def on_test_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: EvalBatch,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Takes a batch's features."""
        self._update(outputs, batch)

    def _update(self, features: Tensor, batch: EvalBatch) -> None:
        self.metric.update(
            features, batch.person_ids, batch.camera_ids, batch.is_query, batch.indices
        )

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Computes, logs and remembers the metrics."""
        if trainer.sanity_checking and not self._wants_first(trainer):
            return
        if self._is_partial(trainer.val_dataloaders):
            return
        with show_stage(trainer, "scoring", None):
            values = self.metric.compute()
        self.metric.reset()
        if trainer.sanity_checking:
            # Lightning keeps a sanity check's values out of the loggers; as a baseline it counts.
            for logger in trainer.loggers:
                logger.log_metrics(_named("val", values), step=0)
        else:
            _log(pl_module, "val", values)
        epoch = -1 if trainer.sanity_checking else trainer.current_epoch
        self.history.append({"epoch": epoch, **values})
        if trainer.state.fn == "validate":
            print_table({"validation": values})

    def on_test_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Computes, logs and prints the metrics."""
        if self._is_partial(trainer.test_dataloaders):
            return
        with show_stage(trainer, "scoring", None):
            values = self.metric.compute()
        self.metric.reset()
        _log(pl_module, "test", values)
        print_table({"test": values})

    def _is_partial(self, loader: Any) -> bool:
        """Tells, with a warning and the same on every rank, when images were left out."""
        seen = sum(all_gather_list([len(indices) for indices in self.metric.indices]))
        total = len(loader.dataset)
        if seen < total:
            rank_zero_warn(f"evaluation saw {seen} of {total} images: no metrics are reported")
        return seen < total

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Prints first, best and last epoch and writes `summary.json`."""
        if not self.history or not trainer.is_global_zero:
            return
        summary = summarize(self.history)
        print_table(summary)
        folder = run_folder(trainer)
        folder.mkdir(parents=True, exist_ok=True)
        text = json.dumps({**summary, "history": self.history}, indent=2)
        (folder / "summary.json").write_text(text + "\n", encoding="utf-8")

    def state_dict(self) -> dict[str, Any]:
        """Keeps the evaluations so far, for a run that goes on."""
        return {"history": self.history}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Takes the evaluations of a checkpoint."""
        self.history = state_dict["history"]


def summarize(history: list[dict[str, float]]) -> dict[str, dict[str, float]]:
    """Picks the first, the best (by mAP) and the last of a run's evaluations."""
    return {
        "first": history[0],
        "best": max(history, key=lambda values: values["mAP"]),
        "last": history[-1],
    }


def _named(stage: str, values: dict[str, float]) -> dict[str, float]:
    return {f"{stage}/{name}": value for name, value in values.items()}


def _log(module: LightningModule, stage: str, values: dict[str, float]) -> None:
    module.log_dict(_named(stage, values), sync_dist=True)  # the same on every rank


@rank_zero_only
def print_table(rows: dict[str, dict[str, float]]) -> None:
    """Prints one line per named evaluation, in percent."""
    names = [name for name in next(iter(rows.values())) if name != "epoch"]
    table = Table(title="Retrieval, %")
    table.add_column("")
    for name in names:
        table.add_column(name, justify="right")
    for label, values in rows.items():
        epoch = values.get("epoch")
        when = "" if epoch is None else " (before training)" if epoch < 0 else f" (epoch {epoch})"
        table.add_row(label + when, *(f"{100 * values[name]:.1f}" for name in names))
    Console().print(table)
