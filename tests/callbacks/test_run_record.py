from __future__ import annotations

import csv
import json
import logging
import time
from pathlib import Path

import pytest
import torch
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.loggers import CSVLogger

from pplr_lightning import PPLRDataModule, PPLRModule, PseudoLabeling
from pplr_lightning.callbacks import RunRecord
from pplr_lightning.callbacks.run_record import add_step
from pplr_lightning.cli import main
from pplr_lightning.data import Market1501
from pplr_lightning.labelers import DBSCAN
from pplr_lightning.networks import PartNetwork
from pplr_lightning.report.history import read_history
from pplr_lightning.report.reading import read_run

from ..conftest import run_options
from ..processes import launch

LABEL_STAGES = {"extraction", "neighbors", "jaccard", "clustering", "agreement", "centroids"}


def logged(folder: Path, name: str) -> list[float]:
    with (folder / "metrics.csv").open() as file:
        return [float(row[name]) for row in csv.DictReader(file) if row.get(name)]


def rows(folder: Path) -> list[dict[str, float]]:
    found, notes = read_history(folder / "history.csv")
    assert notes == []
    return found


@pytest.fixture(scope="module")
def folder(drawn, tmp_path_factory) -> Path:
    """The folder of a run of two epochs of three steps, evaluated before and after each."""
    root = tmp_path_factory.mktemp("recorded")
    main(["fit", *run_options(drawn, root)])
    return root / "demo/version_0"


class TestFit:
    def test_keeps_a_row_per_epoch(self, folder):
        first, *trained = rows(folder)
        assert first["epoch"] == -1
        assert {name for name in first if name != "epoch"} == {
            *(f"val/{name}" for name in ("mAP", "mINP", "rank-1", "rank-5", "rank-10")),
            "time/evaluation",
        }
        assert [row["epoch"] for row in trained] == [0, 1]
        assert [row["iterations"] for row in trained] == [3, 3]
        assert [row["step"] for row in trained] == [3, 6]
        assert [row["finished"] for row in trained] == [1, 1]
        assert [row["lr"] for row in trained] == [3.5e-4, 3.5e-4]

    def test_with_the_means_of_the_losses_that_were_logged(self, folder):
        for name in ("train/loss", "train/loss_pglr", "train/loss_parts", "train/loss_triplet"):
            steps = logged(folder, name)
            means = [row[name] for row in rows(folder)[1:]]
            assert means == pytest.approx([sum(steps[:3]) / 3, sum(steps[3:]) / 3], rel=1e-5)

    def test_with_labels_and_evaluation_as_they_were_logged(self, folder):
        for name in ("labels/clusters", "labels/outliers", "labels/agreement_mean", "labels/ari"):
            found = [row[name] for row in rows(folder)[1:]]
            assert found == pytest.approx(logged(folder, name))
        for name in ("val/mAP", "val/rank-1"):
            found = [row[name] for row in rows(folder)]
            assert found == pytest.approx(logged(folder, name))

    def test_with_the_seconds_of_each_stage(self, folder):
        stages = {*LABEL_STAGES, "training", "evaluation"}
        for row in rows(folder)[1:]:
            times = {name: value for name, value in row.items() if name.startswith("time/")}
            assert set(times) == {f"time/{stage}" for stage in stages}
            assert all(0 < seconds < 100 for seconds in times.values())
        for stage in stages:
            found = [row[f"time/{stage}"] for row in rows(folder)[1:]]
            assert logged(folder, f"time/{stage}") == pytest.approx(found, rel=1e-5)

    def test_writes_environment_and_report(self, folder):
        environment = json.loads((folder / "environment.json").read_text())
        assert environment["hardware"]["processes"] == 1
        assert "demo/version_0" in (folder / "report.html").read_text()

    def test_leaves_nothing_else(self, folder):
        assert not list(folder.glob("*.part"))


def test_prints_a_line_per_epoch_and_can_do_without_a_report(run, run_args, tmp_path, caplog):
    with caplog.at_level(logging.INFO):
        run("fit", *run_args, "--record.report=false")
    lines = [record.message for record in caplog.records if record.message.startswith("epoch ")]
    assert len(lines) == 2
    assert lines[1].startswith("epoch 1: ")
    for word in ("clusters", "outliers", "agreement", "ARI", "loss", "mAP", "training"):
        assert word in lines[1]
    assert (tmp_path / "demo/version_0/history.csv").is_file()
    assert not (tmp_path / "demo/version_0/report.html").exists()


def test_an_error_in_the_report_is_a_warning(tmp_path):
    trainer = Trainer(
        accelerator="cpu", logger=False, enable_checkpointing=False, default_root_dir=tmp_path
    )
    with pytest.warns(UserWarning, match=r"report.html was not written, ValueError: .*no run's"):
        RunRecord().teardown(trainer, None, "fit")


def test_a_trial_run_leaves_nothing(run, run_args, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run("fit", *run_args, "--trainer.fast_dev_run=1")
    names = {path.name for path in tmp_path.rglob("*")}
    assert not names & {"history.csv", "environment.json", "report.html"}


class Slow(Callback):
    """Takes its time between the steps."""

    def on_train_batch_start(self, *args):
        time.sleep(0.5)

    def on_train_epoch_end(self, *args):
        time.sleep(0.5)


def test_what_other_callbacks_do_is_no_time_of_training(drawn, tmp_path):
    record = RunRecord(report=False)
    labels = PseudoLabeling(DBSCAN(k1=6, k2=2, eps=0.6, min_samples=2))
    trainer = Trainer(
        accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False,
        default_root_dir=tmp_path, max_epochs=1, callbacks=[record, labels, Slow()],
    )  # fmt: skip
    network = PartNetwork("resnet10t", weights=None, norm_batch_size=8, image_size=(64, 32))
    module = PPLRModule(network, max_clusters=60, agreement_k=4)
    data = PPLRDataModule(
        Market1501(drawn), image_size=(64, 32), batch_size=16, iterations=8, num_workers=0
    )
    begin = time.perf_counter()
    trainer.fit(module, datamodule=data)
    whole = time.perf_counter() - begin
    (row,) = record.rows
    assert 0 < row["time/training"] < whole - 8 * 0.5


def test_a_run_that_goes_on_has_the_rows_of_all_its_parts(run, run_args, checkpoint_args, tmp_path):
    run("fit", *run_args, *checkpoint_args, "--trainer.max_epochs=1")
    checkpoint = tmp_path / "demo/version_0/checkpoints/last.ckpt"
    before = rows(tmp_path / "demo/version_0")
    run("fit", *run_args, f"--ckpt_path={checkpoint}")
    found = rows(tmp_path / "demo/version_1")
    assert [row["epoch"] for row in found] == [-1, 0, 1]
    assert found[:2] == before


def test_evaluations_of_other_features_are_left_out(run, run_args, checkpoint_args, tmp_path):
    run("fit", *run_args, *checkpoint_args, "--trainer.max_epochs=1")
    checkpoint = tmp_path / "demo/version_0/checkpoints/last.ckpt"
    with pytest.warns(UserWarning, match="left out of the table"):
        run("fit", *run_args, f"--ckpt_path={checkpoint}", "--evaluation.test_features=parts")
    found = rows(tmp_path / "demo/version_1")
    assert [row["epoch"] for row in found if "val/mAP" in row] == [1]
    assert [row["epoch"] for row in found if "train/loss" in row] == [0, 1]


def test_sigterm_leaves_history_and_report(run_process, run_args, tmp_path):
    done = run_process(
        "fit",
        *run_args,
        "--trainer.callbacks+=tests.faults.Terminates",
        "--trainer.callbacks.step=1",
    )
    assert done.returncode == 143, done.stderr
    folder = tmp_path / "demo/version_0"
    before, row = rows(folder)
    assert before["epoch"] == -1
    assert row["iterations"] == 2
    assert "finished" not in row
    assert row["train/loss"] > 0
    assert row["labels/clusters"] > 1
    text = (folder / "report.html").read_text()
    assert "The run ended after 0 of 2 epochs." in text
    assert f"report: {folder / 'report.html'}" in done.stderr


def losses(*values):
    return {f"train/{number}": torch.tensor(value) for number, value in enumerate(values)}


class TestAddStep:
    def test_means_over_the_steps(self):
        row = {"epoch": 2}
        add_step(row, {})
        assert row == {"epoch": 2, "iterations": 1}  # a method that logs nothing
        row = {"epoch": 2}
        add_step(row, losses(1.0, 4.0))
        add_step(row, losses(2.0, 8.0))
        assert row == {"epoch": 2, "iterations": 2, "train/0": 1.5, "train/1": 6.0}

    def test_goes_on_with_an_epoch_that_was_broken_off(self):
        row = {"epoch": 0, "iterations": 3.0, "train/0": 2.0}
        add_step(row, losses(6.0))
        assert row["iterations"] == 4
        assert row["train/0"].item() == pytest.approx(3.0)

    def test_adds_half_precision_up_in_full(self):
        row = {"epoch": 0}
        for step in range(300):
            add_step(row, {"train/0": torch.tensor(float(step % 2), dtype=torch.bfloat16)})
        assert row["train/0"].item() == pytest.approx(0.5, rel=1e-5)

    def test_every_rank_has_the_mean_over_all(self, tmp_path):
        assert launch(_add, 2, tmp_path) == [1.5] * 2


def _add(rank):
    row = {"epoch": 0}
    add_step(row, losses(1.0 + rank))
    return row["train/0"].item()


def test_a_script_of_ones_own_leaves_its_options(drawn, tmp_path):
    module = PPLRModule(
        PartNetwork("test_resnet", weights=None, norm_batch_size=8, num_parts=2),
        max_clusters=64,
        agreement_k=4,
    )
    data = PPLRDataModule(
        Market1501(drawn), image_size=(64, 32), batch_size=16, iterations=2, num_workers=0
    )
    labels = PseudoLabeling(DBSCAN(k1=6, k2=2, eps=0.6, min_samples=2))
    trainer = Trainer(
        accelerator="cpu", max_epochs=1, logger=CSVLogger(tmp_path, name="own"),
        callbacks=[labels, RunRecord()], enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, limit_val_batches=0,
    )  # fmt: skip
    trainer.fit(module, datamodule=data)
    folder = tmp_path / "own/version_0"
    run = read_run(folder)
    for name, value in {
        "pseudo_labels.labeler.eps": 0.6, "pseudo_labels.labeler.k1": 6, "model.agreement_k": 4,
        "model.network.backbone": "test_resnet", "data.batch_size": 16, "optimizer.lr": 3.5e-4,
        "data.dataset.root": str(drawn), "trainer.max_epochs": 1,
    }.items():  # fmt: skip
        assert run.option(name) == value, name
    assert run.kind("model") == "PPLRModule"
    assert "eps: 0.6" in (folder / "hparams.yaml").read_text()
    assert "DBSCAN (k1 6" in (folder / "report.html").read_text()
