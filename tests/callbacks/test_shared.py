from __future__ import annotations

from pathlib import Path

import torch
from lightning.pytorch import Trainer
from lightning.pytorch.loggers import CSVLogger, WandbLogger

from pplr_lightning.callbacks.shared import History, run_folder


def make(**options) -> Trainer:
    return Trainer(accelerator="cpu", enable_checkpointing=False, **options)


def folder(logger, **options) -> Path:
    return run_folder(make(logger=logger, **options))


def test_is_the_runs_own(tmp_path):
    assert folder(CSVLogger(tmp_path, name="a", version="b")) == tmp_path / "a/b"
    wandb = WandbLogger(project="reid", id="x1", save_dir=tmp_path, offline=True)
    assert folder(wandb) == tmp_path / "reid/x1"


def test_without_a_logger(tmp_path):
    assert folder(False, default_root_dir=tmp_path) == tmp_path


class TestHistory:
    def test_is_one_for_a_trainer(self):
        trainer = make(logger=False)
        history = History.of(trainer)
        assert History.of(trainer) is history
        assert trainer.callbacks.count(history) == 1
        assert History.of(make(logger=False)) is not history

    def test_has_a_row_for_each_epoch_of_which_something_is_told(self):
        trainer, history = make(logger=False), History()
        history.row(trainer)["val/mAP"] = 0.5
        trainer.fit_loop.epoch_progress.current.completed = 1
        history.row(trainer)
        assert history.rows == [{"epoch": 0, "val/mAP": 0.5}]
        history.row(trainer)["train/loss"] = torch.tensor(0.25)
        assert history.rows == [{"epoch": 0, "val/mAP": 0.5}, {"epoch": 1, "train/loss": 0.25}]
        assert all(type(value) is float for row in history.rows for value in row.values())
        assert history.under("val/") == [{"epoch": 0, "mAP": 0.5}]
        history.forget("val/")
        assert history.rows == [{"epoch": 1, "train/loss": 0.25}]

    def test_survives_a_checkpoint(self):
        rows = [{"epoch": -1.0, "val/mAP": 0.25}, {"epoch": 3.0, "val/mAP": 0.5}]
        history, other = History(), History()
        history.load_state_dict({"rows": rows, "features": "both"})
        other.load_state_dict(history.state_dict())
        assert other.rows == history.rows == rows
        assert other.features == "both"

    def test_another_fit_begins_anew(self):
        history = History()
        history.load_state_dict({"rows": [{"epoch": 3.0, "val/mAP": 0.5}], "features": "both"})
        history.setup(None, None, "validate")
        assert history.rows == [{"epoch": 3, "val/mAP": 0.5}]
        history.setup(None, None, "fit")
        assert history.state_dict() == {"rows": [], "features": None}
