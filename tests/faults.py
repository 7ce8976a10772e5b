"""Things that go wrong in the middle of a run, to be named in `--trainer.callbacks+=`."""

from __future__ import annotations

import os
import signal
from pathlib import Path

from lightning.pytorch import Callback

from pplr_lightning.data import Market1501, Splits
from pplr_lightning.labelers import DBSCAN


class Fault(Callback):
    """Does `happen` before a step, on one rank."""

    def __init__(self, step: int, rank: int = 0) -> None:
        self.step, self.rank = step, rank

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        if trainer.global_step == self.step and trainer.global_rank == self.rank:
            self.happen(batch)


class Raises(Fault):
    """Leaves a file, then raises."""

    def __init__(self, step: int, file: str, rank: int = 0) -> None:
        super().__init__(step, rank)
        self.file = file

    def happen(self, batch):
        Path(self.file).touch()
        raise LookupError(f"the fault of rank {self.rank}")


class RaisesIn(Callback):
    """Has one rank raise, or die, in some place of the second epoch; leaves a file before."""

    def __init__(self, place: str, file: str, rank: int = 1) -> None:
        self.place, self.file, self.rank = place, file, rank

    def on_train_epoch_end(self, trainer, pl_module):
        if trainer.global_rank != self.rank:
            return
        method, data = pl_module, trainer.datamodule
        places = {
            "reading": (data, "labeling_dataloader"),
            "extraction": (method, "embed_batches"),
            "labels": (method, "begin_epoch"),
            "loss": (method, "log_losses"),
            "averaged": (method, "on_before_optimizer_step"),
            "killed": (method, "log_losses"),
        }
        owner, name = places[self.place]
        setattr(owner, name, self.fail)

    def fail(self, *args, **kwargs):
        Path(self.file).touch()
        if self.place == "killed":
            os.kill(os.getpid(), signal.SIGKILL)
        raise LookupError(f"the fault of rank {self.rank}")


class Poisons(Fault):
    """Puts a NaN into one image."""

    def happen(self, batch):
        batch.images[0, 0, 0, 0] = float("nan")


class Terminates(Fault):
    """Has this process get a signal."""

    def __init__(self, step: int, rank: int = 0, signum: int = int(signal.SIGTERM)) -> None:
        super().__init__(step, rank)
        self.signum = signum

    def happen(self, batch):
        os.kill(os.getpid(), self.signum)


class Removes(Fault):
    """Removes the training images."""

    def __init__(self, step: int, folder: str, rank: int = 0) -> None:
        super().__init__(step, rank)
        self.folder = folder

    def happen(self, batch):
        for path in Path(self.folder).iterdir():
            path.unlink()


class BreaksGradient(Fault):
    """Makes one rank's gradient infinite, when those of all ranks are averaged already."""

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        """Does nothing yet."""

    def on_before_optimizer_step(self, trainer, pl_module, optimizer):
        if trainer.global_step == self.step and trainer.global_rank == self.rank:
            next(pl_module.parameters()).grad[0] = float("inf")


class Unequal(Market1501):
    """Is one rank's alone: another image is missing there, or all of them."""

    def __init__(self, root: str, rank: int = 1, everything: bool = False) -> None:
        super().__init__(root)
        self.rank, self.everything = rank, everything

    def load(self):
        train, query, gallery = super().load()
        if os.environ.get("RANK") != str(self.rank):
            return Splits(train, query, gallery)
        if self.everything:
            raise FileNotFoundError(2, "No such file or directory", str(self.root))
        return Splits(train[1:], query, gallery)


class Unable(DBSCAN):
    """Refuses the images on one rank."""

    def __init__(self, rank: int = 1, k1: int = 6, k2: int = 2, min_samples: int = 2) -> None:
        super().__init__(k1=k1, k2=k2, min_samples=min_samples)
        self.rank = rank

    def check(self, samples):
        if os.environ.get("RANK") == str(self.rank):
            raise ValueError(f"the labeler of rank {self.rank} cannot")


class Unprepared(Market1501):
    """Cannot be written, by the one process that is asked to."""

    def prepare(self):
        raise ValueError("the set cannot be written")
