"""`fit` on several real processes over gloo."""

from __future__ import annotations

import csv
import json
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from .conftest import ROOT


def column(folder: Path, name: str) -> list[float]:
    with (folder / "metrics.csv").open() as file:
        return [float(row[name]) for row in csv.DictReader(file) if row.get(name)]


def test_two_processes_train_as_one(run, run_process, run_args, tmp_path):
    """In float64, where rounding does not drive two correct programs apart."""
    run("fit", *run_args, "--trainer.precision=64-true")
    done = run_process(
        "fit",
        *run_args,
        "--trainer.precision=64-true",
        "--trainer.devices=2",
        "--trainer.strategy=ddp",
        f"--trainer.logger.init_args.save_dir={tmp_path / 'two'}",
        "--data.num_workers=1",
    )
    assert done.returncode == 0, done.stderr
    one, two = tmp_path / "demo/version_0", tmp_path / "two/demo/version_0"
    for name in ("train/loss", "train/loss_triplet", "labels/clusters", "val/mAP"):
        assert column(two, name) == pytest.approx(column(one, name), rel=1e-6), name
    assert len(column(two, "train/loss")) == 6
    summaries = [json.loads((f / "summary.json").read_text()) for f in (one, two)]
    assert summaries[0]["last"] == pytest.approx(summaries[1]["last"], abs=1e-6)


def test_an_error_of_rank_zero_ends_the_whole_job(run_process, run_args):
    done = run_process(
        "fit",
        *run_args,
        "--trainer.devices=2",
        "--trainer.strategy=ddp",
        "--pseudo_labels.min_samples=90",
        timeout=120,
    )
    assert done.returncode != 0
    assert "error: no cluster in" in done.stderr


def test_torchrun_on_two_nodes(run_args, tmp_path):
    """A launch on two nodes, both of them this machine."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    nodes = [
        subprocess.Popen(
            [
                sys.executable, "-m", "torch.distributed.run", "--nnodes=2", "--nproc_per_node=1",
                f"--node_rank={rank}", "--master_addr=127.0.0.1", f"--master_port={port}",
                "-m", "pplr_lightning", "fit", *run_args, "--trainer.num_nodes=2",
                "--trainer.devices=1", "--trainer.strategy=ddp", "--trainer.max_epochs=1",
                "--data.iterations=2", f"--trainer.logger.init_args.save_dir={tmp_path / 'nodes'}",
            ],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for rank in range(2)
    ]  # fmt: skip
    outputs = [node.communicate(timeout=240)[0] for node in nodes]
    assert [node.returncode for node in nodes] == [0, 0], outputs
    assert len(column(tmp_path / "nodes/demo/version_0", "train/loss")) == 2
