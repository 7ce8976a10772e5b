"""All that touches what Lightning does not promise to keep; setup.cfg bounds its versions."""

from __future__ import annotations

import logging
import subprocess
import warnings
from typing import Any

from lightning.fabric.utilities.cloud_io import _is_local_file_protocol as is_local
from lightning.fabric.utilities.types import _PATH
from lightning.pytorch import LightningModule, Trainer

PathLike = _PATH
HANDED_BACK = ".temp.ckpt"  # bare weights, which processes of ddp_spawn and its kin hand back

__all__ = [
    "HANDED_BACK",
    "KeepsGivenOptions",
    "PathLike",
    "batches_done",
    "has_scaler",
    "is_local",
    "leave_out_noise",
    "reopen_last_epoch",
    "show_on_bar",
    "started_processes",
    "trainer_of",
]


# Advertisements, and warnings of what torch and Lightning do with each other.
TIP = "💡 Tip: For seamless"
NOISE = (
    r"`isinstance\(treespec, LeafSpec\)` is deprecated",
    r"`?torch\.distributed\.[\w.]*all_gather\w*`? is deprecated",
    r"The number of training batches \(\d+\) is smaller than the logging interval",
)


def leave_out_noise() -> None:
    """Has the command line say only what its user can do something about."""
    for message in NOISE:
        warnings.filterwarnings("ignore", message=message)
    logger = logging.getLogger("lightning.pytorch.utilities.rank_zero")
    if not any(getattr(one, "__name__", "") == "_no_tip" for one in logger.filters):
        logger.addFilter(_no_tip)


def _no_tip(record: logging.LogRecord) -> bool:
    return not record.getMessage().startswith(TIP)


class KeepsGivenOptions:
    """A mixin of `LightningCLI`: the options given count, not those of the checkpoint.

    Lightning 2.6 would put the options of the model that the checkpoint was made with in their
    place, without a word.
    """

    def _parse_ckpt_path(self) -> None:
        """Does nothing."""


def trainer_of(module: LightningModule) -> Trainer | None:
    """Returns the Trainer that a module is attached to, if any; `module.trainer` would raise."""
    return module._trainer


def batches_done(trainer: Trainer) -> int:
    """Counts the epoch's batches before the first that is asked for; 0 but after a resume."""
    return trainer.fit_loop.epoch_loop.batch_progress.current.ready


def show_on_bar(trainer: Trainer, values: dict[str, float]) -> None:
    """Shows values on the progress bar without logging them, which would make the host wait."""
    if trainer.progress_bar_callback is not None:
        trainer.progress_bar_metrics.update(values)


def has_scaler(trainer: Trainer) -> bool:
    """Tells whether gradients are scaled, as in 16-mixed."""
    return getattr(trainer.precision_plugin, "scaler", None) is not None


def started_processes(trainer: Trainer) -> list[subprocess.Popen[bytes]]:
    """Lists the processes that Lightning's launcher started beside this one."""
    return getattr(trainer.strategy.launcher, "procs", [])


def reopen_last_epoch(checkpoint: dict[str, Any], *, validates: bool) -> None:
    """Lets a run go on properly from a checkpoint made between an epoch's last batch and its end.

    From one made right after the last batch, Lightning 2.6 takes the epoch for ended: it skips its
    validation, and then the hooks that begin the next epoch, which would train on old labels. From
    one made in validation it skips the validation. Stating that validation had begun makes it
    validate anew, end the epoch and begin the next in the order of a run that was not stopped.

    Args:
        checkpoint: Changed in place.
        validates: Whether the epoch ends in a validation.
    """
    loops = checkpoint["loops"]["fit_loop"]
    epochs, batches = loops["epoch_progress"]["total"], loops["epoch_loop.batch_progress"]
    validation = loops["epoch_loop.val_loop.batch_progress"]
    in_epoch = epochs["processed"] == epochs["started"] - 1
    if not (in_epoch and batches["is_last_batch"]):
        return
    at_last_batch = batches["total"]["completed"] == batches["total"]["processed"] - 1
    counts = validation["current"]
    if not at_last_batch and validation["is_last_batch"] and counts["completed"] == counts["ready"]:
        return  # made when validation had ended: Lightning does that right
    for progress in (batches["total"], batches["current"]):
        progress["completed"] = progress["processed"]
    for progress in (validation["total"], validation["current"]):
        progress.update(ready=1, started=1, processed=0, completed=0)
    validation["is_last_batch"] = False
    if not validates:  # it counts the step for the loggers only where it validates
        loops["epoch_loop.state_dict"]["_batches_that_stepped"] += 1
