"""What callbacks share: a run's folder, its history, and what several of them do alike."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_info, rank_zero_warn

from pplr_lightning.functional.warm_up import compile_loops
from pplr_lightning.report.history import BEFORE, Row

C = TypeVar("C", bound=Callback)


def find(trainer: Trainer, kind: type[C]) -> C | None:
    """Returns the Trainer's first callback of a kind, if there is one."""
    callbacks: list[Callback] = trainer.callbacks  # type: ignore[attr-defined]
    return next((callback for callback in callbacks if isinstance(callback, kind)), None)


class History(Callback):
    """The one history of a `fit`, a row per epoch, which its callbacks write and read together.

    Whichever of them comes first adds it to the Trainer. Checkpoints hold its rows, so that a run
    which goes on has those of all its parts; any other run begins without.

    Attributes:
        features: Those that the evaluations compared; None before there is an evaluation.
    """

    def __init__(self) -> None:
        self.features: str | None = None
        self._rows: dict[int, dict[str, Any]] = {}  # mean losses may still be on the device

    @classmethod
    def of(cls, trainer: Trainer) -> History:
        """Returns the history of a Trainer's runs."""
        found = find(trainer, cls)
        if found is None:
            found = cls()
            trainer.callbacks.append(found)  # type: ignore[attr-defined]
        return found

    @property
    def rows(self) -> list[Row]:
        """The rows that tell something, in order; epoch -1 is before training."""
        rows = (self._rows[epoch] for epoch in sorted(self._rows))
        return [{name: float(value) for name, value in row.items()} for row in rows if len(row) > 1]

    def row(self, trainer: Trainer) -> dict[str, Any]:
        """Returns the current epoch's row, to be written into."""
        epoch = BEFORE if trainer.sanity_checking else trainer.current_epoch
        return self._rows.setdefault(epoch, {"epoch": epoch})

    def under(self, prefix: str) -> list[Row]:
        """Returns the epochs of which something is told under a prefix, without the prefix."""
        found = [
            {"epoch": int(row["epoch"])}
            | {name.removeprefix(prefix): row[name] for name in row if name.startswith(prefix)}
            for row in self.rows
        ]
        return [row for row in found if len(row) > 1]

    def forget(self, prefix: str) -> None:
        """Leaves out what is told under a prefix."""
        for epoch, row in self._rows.items():
            self._rows[epoch] = {n: value for n, value in row.items() if not n.startswith(prefix)}

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Forgets another run's rows."""
        if stage == "fit":
            self.load_state_dict({"rows": [], "features": None})

    def state_dict(self) -> dict[str, Any]:
        """Keeps the rows, the unfinished one too."""
        return {"rows": self.rows, "features": self.features}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Takes the rows of a checkpoint."""
        self._rows = {int(row["epoch"]): dict(row) for row in state_dict["rows"]}
        self.features = state_dict["features"]


def run_folder(trainer: Trainer) -> Path:
    """Returns the folder of this run, the one that holds `checkpoints`.

    Unlike `Trainer.log_dir` it is no collective, so that rank 0 can ask alone, and it is the run's
    own also under loggers that name only a common one (Weights & Biases).
    """
    logger = trainer.logger
    if logger is None:
        return Path(trainer.default_root_dir)
    if logger.log_dir is not None:
        return Path(logger.log_dir)
    return Path(logger.save_dir or trainer.default_root_dir, str(logger.name), str(logger.version))


def writes(trainer: Trainer) -> bool:
    """Tells whether this process writes files: of all ranks the first, and not in a trial."""
    return trainer.is_global_zero and not getattr(trainer, "fast_dev_run", False)


@contextmanager
def harmless(failure: str) -> Iterator[None]:
    """Turns an error into a warning: what is told of a run is not worth the run."""
    try:
        yield
    except Exception as error:
        rank_zero_warn(f"{failure}, {type(error).__name__}: {error}")


def compile_before_work() -> None:
    """Compiles the loops of labels and metrics; says so where this machine had not yet."""
    seconds = compile_loops()
    if seconds > 2:
        rank_zero_info(f"compiled loops in {seconds:.0f} s; later runs on this machine load them")
