"""A small network for methods without parts, and short runs of it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from lightning.pytorch import Callback, Trainer
from torch import Tensor

from pplr_lightning import PPLRDataModule, PseudoLabeling
from pplr_lightning.data import Market1501
from pplr_lightning.labelers import DBSCAN
from pplr_lightning.networks import PartNetwork

from ..test_ddp import column

REFERENCE = Path(__file__).parents[1] / "reference"


def network(**options):
    options = {"num_parts": 0, "norm_batch_size": 8, "weights": None, **options}
    return PartNetwork("test_resnet", **options)


class OneProcess:
    """The little of a Trainer that a step asks for."""

    world_size = 1
    global_rank = 0
    current_epoch = 0
    is_last_batch = False


def alone(module):
    """A module that steps without a Trainer."""
    module.trainer = OneProcess()
    module.log_dict = lambda *_, **__: None
    return module


def read(name) -> dict[str, Tensor]:
    """The authors' arrays of that name."""
    with np.load(REFERENCE / f"{name}.npz") as file:
        return {key: torch.from_numpy(np.asarray(file[key])) for key in file.files}


class SaveAfterStep(Callback):
    def __init__(self, path):
        self.path = path

    def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx):
        if trainer.global_step == 1:
            trainer.save_checkpoint(self.path)


def fit(module, drawn, *callbacks, labeler=None, refinement=None, ckpt_path=None, **options):
    """Trains two epochs of three steps; `options` are of the data."""
    data = PPLRDataModule(
        Market1501(drawn), image_size=(64, 32), batch_size=16, iterations=3, num_workers=0,
        **options,
    )  # fmt: skip
    labeler = labeler or DBSCAN(k1=6, k2=2, eps=0.6, min_samples=2)
    trainer = Trainer(
        accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, max_epochs=2, limit_val_batches=0,
        callbacks=[PseudoLabeling(labeler, refinement=refinement), *callbacks],
    )  # fmt: skip
    trainer.fit(module, datamodule=data, ckpt_path=ckpt_path)
    return module


def options(drawn, folder):
    return [
        "--config=configs/cluster_contrast_market1501.yaml",
        f"--data.dataset.init_args.root={drawn}",
        "--data.image_size=[64,32]",
        "--data.batch_size=16",
        "--data.instances=4",
        "--data.iterations=3",
        "--data.num_workers=0",
        "--model.network.backbone=test_resnet",
        "--model.network.weights=null",
        "--model.network.norm_batch_size=8",
        "--pseudo_labels.labeler.k1=6",
        "--pseudo_labels.labeler.k2=2",
        "--pseudo_labels.labeler.min_samples=2",
        "--figures.names=[]",
        "--trainer.accelerator=cpu",
        "--trainer.precision=64-true",
        "--trainer.max_epochs=2",
        "--trainer.check_val_every_n_epoch=1",
        "--trainer.log_every_n_steps=1",
        "--trainer.callbacks=[]",
        "--trainer.enable_progress_bar=false",
        f"--trainer.logger.init_args.save_dir={folder}",
    ]


def train_as_one(run, run_several, folder, words, name, *values, rel=1e-9):
    """Compares what one process and two log of a run of `fit` with these options.

    `name` is the logger's; clusters and mAP are compared besides `values`.
    """
    place = "--trainer.logger.init_args.save_dir={}".format
    run("fit", *words, place(folder / "one"))
    ddp = ("--trainer.devices=2", "--trainer.strategy=ddp")
    done = run_several(2, "fit", *words, place(folder / "two"), *ddp)
    assert done.returncode == 0, done.stderr
    one, two = (folder / processes / name / "version_0" for processes in ("one", "two"))
    for value in (*values, "labels/clusters", "val/mAP"):
        found = column(two, value)
        assert found
        assert found == pytest.approx(column(one, value), rel=rel), value
