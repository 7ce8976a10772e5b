from __future__ import annotations

from pathlib import Path

from lightning.pytorch import Trainer
from lightning.pytorch.loggers import CSVLogger, WandbLogger

from pplr_lightning.callbacks.run_folder import run_folder


def folder(logger, **options) -> Path:
    return run_folder(
        Trainer(accelerator="cpu", enable_checkpointing=False, logger=logger, **options)
    )


def test_is_the_runs_own(tmp_path):
    assert folder(CSVLogger(tmp_path, name="a", version="b")) == tmp_path / "a/b"
    wandb = WandbLogger(project="reid", id="x1", save_dir=tmp_path, offline=True)
    assert folder(wandb) == tmp_path / "reid/x1"


def test_without_a_logger(tmp_path):
    assert folder(False, default_root_dir=tmp_path) == tmp_path
