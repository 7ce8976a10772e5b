"""A run that goes on from a checkpoint ends in the very weights of one that was never stopped."""

from __future__ import annotations

import csv
import operator
from functools import partial
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
from lightning.pytorch import Callback, Trainer, seed_everything
from lightning.pytorch.loggers import CSVLogger
from torch.optim.lr_scheduler import StepLR

from pplr_lightning import (
    PPLRDataModule,
    PPLRModule,
    PseudoLabeling,
    RetrievalEvaluation,
    RunRecord,
)
from pplr_lightning.data import Market1501
from pplr_lightning.labelers import DBSCAN
from pplr_lightning.networks import PartNetwork
from pplr_lightning.weights.checkpoints import WholeCheckpointIO


class Dropping(PPLRModule):
    """Draws random numbers in the step, as dropout and stochastic depth do."""

    def training_step(self, batch, batch_idx):
        images = torch.nn.functional.dropout(batch.images, 0.1)
        return super().training_step(batch._replace(images=images), batch_idx)


class SaveEverywhere(Callback):
    """Saves at every moment at which a callback of Lightning may."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def save(self, trainer, moment):
        if not trainer.sanity_checking:
            trainer.save_checkpoint(self.folder / f"{trainer.current_epoch}-{moment}.ckpt")

    def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx):
        self.save(trainer, f"batch-{batch_idx}")

    def on_validation_start(self, trainer, module):
        self.save(trainer, "validation-start")

    def on_validation_batch_end(self, trainer, module, outputs, batch, batch_idx):
        self.save(trainer, f"validation-batch-{batch_idx}")

    def on_validation_end(self, trainer, module):
        self.save(trainer, "validation-end")

    def on_train_epoch_end(self, trainer, module):
        self.save(trainer, "end")


class Record(Callback):
    """Keeps the losses, the batches and the epochs that were labelled."""

    def __init__(self) -> None:
        self.steps: dict[int, tuple[float, list[int]]] = {}

    def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx):
        self.steps[trainer.global_step] = (outputs["loss"].item(), batch.indices.tolist())


class Run(NamedTuple):
    weights: dict
    optimizer: dict
    schedule: dict
    steps: dict
    history: list
    log: list[tuple[str, str]]  # step and loss
    rows: list[dict]  # of the record, without the times


class Training:
    """Trains two epochs of two steps, of which `SaveEverywhere` keeps each moment."""

    def __init__(self, drawn: Path, folder: Path) -> None:
        self.drawn, self.folder = drawn, folder

    def run(self, *, ckpt_path=None, workers=0, cache="auto", callbacks=(), **options) -> Run:
        seed_everything(3, verbose=False)
        network = PartNetwork("resnet10t", weights=None, num_parts=2, norm_batch_size=8)
        module = Dropping(
            network, max_clusters=64, agreement_k=4, camera_weight=0.5, proxy_momentum=0.2
        )
        module.optimizer = partial(torch.optim.Adam, lr=2e-4, weight_decay=5e-4)
        module.lr_scheduler = partial(StepLR, step_size=1, gamma=0.1)
        data = PPLRDataModule(
            Market1501(self.drawn), image_size=(64, 32), batch_size=16, iterations=2,
            num_workers=workers, cache=cache, padding=3, seed=3,
        )  # fmt: skip
        record, evaluation = Record(), RetrievalEvaluation(before_training=False)
        history = RunRecord(report=False)
        labels = PseudoLabeling(DBSCAN(k1=6, k2=2, min_samples=2))
        logger = CSVLogger(self.folder, name="logs")
        trainer = Trainer(
            accelerator="cpu", max_epochs=2, logger=logger, log_every_n_steps=1,
            enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
            callbacks=[labels, evaluation, record, history, *callbacks],
            plugins=[WholeCheckpointIO()], **options,
        )  # fmt: skip
        trainer.fit(module, data, ckpt_path=ckpt_path)
        return Run(
            module.state_dict(),
            trainer.optimizers[0].state_dict(),
            trainer.lr_scheduler_configs[0].scheduler.state_dict(),
            record.steps,
            evaluation.history,
            logged(Path(logger.log_dir, "metrics.csv")),
            [untimed(row) for row in history.rows],
        )


def untimed(row: dict[str, float]) -> dict[str, float]:
    return {name: value for name, value in row.items() if not name.startswith("time/")}


def logged(file: Path) -> list[tuple[str, str]]:
    if not file.exists():
        return []  # nothing was left to train
    with file.open() as lines:
        rows = list(csv.DictReader(lines))
    return [(row["step"], row["train/loss"]) for row in rows if row.get("train/loss")]


@pytest.fixture(scope="module")
def training(drawn, tmp_path_factory):
    return Training(drawn, tmp_path_factory.mktemp("resume"))


@pytest.fixture(scope="module")
def whole(training):
    """The run that was never stopped, and the folder of its checkpoints."""
    folder = training.folder / "whole"
    return training.run(callbacks=[SaveEverywhere(folder)]), folder


def same(state, other) -> bool:
    if isinstance(state, torch.Tensor):
        return torch.equal(state, other)
    if isinstance(state, dict):
        return state.keys() == other.keys() and all(same(state[k], other[k]) for k in state)
    if isinstance(state, list | tuple):
        return len(state) == len(other) and all(map(same, state, other))
    return state == other


@pytest.mark.parametrize(
    "moment",
    [
        "0-batch-0", "0-batch-1", "0-validation-start", "0-validation-batch-0", "0-validation-end",
        "0-end", "1-batch-0", "1-batch-1", "1-end",
    ],
)  # fmt: skip
def test_goes_on_as_if_never_stopped(training, whole, moment):
    expected, folder = whole
    checkpoint = folder / f"{moment}.ckpt"
    run = training.run(ckpt_path=checkpoint)
    assert same(run.weights, expected.weights)
    assert same(run.optimizer, expected.optimizer)
    assert same(run.schedule, expected.schedule)
    assert run.history == expected.history
    assert len(run.rows) == len(expected.rows)
    assert all(map(operator.eq, run.rows, map(pytest.approx, expected.rows)))
    done = torch.load(checkpoint, weights_only=True)["global_step"]
    assert run.steps == {step: seen for step, seen in expected.steps.items() if step > done}
    assert run.log == expected.log[done:]


def test_goes_on_where_the_epoch_ends_without_validation(training):
    options = {"check_val_every_n_epoch": 2}
    folder = training.folder / "every-2"
    expected = training.run(callbacks=[SaveEverywhere(folder)], **options)
    run = training.run(ckpt_path=folder / "0-batch-1.ckpt", **options)
    assert same(run.weights, expected.weights)
    assert run.history == expected.history
    assert run.log == expected.log[2:]


@pytest.mark.parametrize("workers", [1, 3])
def test_from_files_whatever_the_number_of_workers(training, whole, workers):
    expected, folder = whole
    run = training.run(ckpt_path=folder / "0-batch-0.ckpt", workers=workers, cache="none")
    assert same(run.weights, expected.weights)
    assert len(run.steps) == 3
    assert run.steps.items() <= expected.steps.items()


def test_saving_changes_nothing(training, whole):
    expected, _ = whole
    assert training.run().steps == expected.steps
