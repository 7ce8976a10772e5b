"""`fit` on several real processes over gloo."""

from __future__ import annotations

import csv
import json
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from pplr_lightning.cli import main
from pplr_lightning.report.history import read_history

from .conftest import ROOT, run_options


def column(folder: Path, name: str) -> list[float]:
    with (folder / "metrics.csv").open() as file:
        return [float(row[name]) for row in csv.DictReader(file) if row.get(name)]


# Two groups of 8 images. In float64, where rounding does not drive two correct programs apart.
FLOAT64 = (
    "--trainer.precision=64-true",
    "--trainer.max_epochs=3",
    "--evaluation.test_features=both",
    "--evaluation.rerank=true",
)
COMPARED = ("train/loss", "train/loss_triplet", "labels/clusters", "val/mAP", "val/rerank/mAP")


@pytest.fixture(scope="module")
def alone(drawn, tmp_path_factory) -> Path:
    """The folder of a run in one process."""
    folder = tmp_path_factory.mktemp("alone")
    main(["fit", *run_options(drawn, folder), *FLOAT64])
    return folder / "demo/version_0"


def several(processes: int) -> tuple[str, ...]:
    return (*FLOAT64, f"--trainer.devices={processes}", "--trainer.strategy=ddp")


def times(row: dict[str, float]) -> dict[str, float]:
    return {name: value for name, value in row.items() if name.startswith("time/")}


@pytest.mark.parametrize("processes", [2, 4])
def test_several_processes_train_as_one(alone, run_several, run_args, tmp_path, processes):
    """Each of two holds a whole group of batch statistics; of four, two hold one together."""
    options = (*several(processes), "--data.num_workers=1")
    done = run_several(processes, "fit", *run_args, *options)
    assert done.returncode == 0, done.stderr
    folder = tmp_path / "demo/version_0"
    for name in COMPARED:
        assert column(folder, name) == pytest.approx(column(alone, name), rel=1e-6), name
    assert len(column(folder, "train/loss")) == 9
    histories = (read_history(run / "history.csv")[0] for run in (alone, folder))
    for expected, row in zip(*histories, strict=True):
        assert expected.keys() == row.keys()
        assert row == pytest.approx(expected | times(row), rel=1e-6)
    summaries = [json.loads((run / "summary.json").read_text()) for run in (alone, folder)]
    assert summaries[0]["last"] == pytest.approx(summaries[1]["last"], abs=1e-6)


def test_the_setting_with_cameras_trains_as_one(run, run_several, run_args, tmp_path):
    """Sampler, camera loss on moving proxies, camera-aware distance, on one and two processes."""
    cameras = (
        "--data.use_cameras=true",
        "--model.camera_weight=0.5",
        "--model.proxy_momentum=0.2",
        "--pseudo_labels.labeler=CameraDBSCAN",
        "--pseudo_labels.labeler.k1_intra=2",
        "--pseudo_labels.labeler.k1_inter=5",
    )
    run("fit", *run_args, *FLOAT64, *cameras, "--trainer.logger.init_args.version=one")
    options = (*several(2), *cameras, "--trainer.logger.init_args.version=two")
    done = run_several(2, "fit", *run_args, *options)
    assert done.returncode == 0, done.stderr
    one, two = tmp_path / "demo/one", tmp_path / "demo/two"
    for name in (*COMPARED, "train/loss_camera"):
        assert column(two, name) == pytest.approx(column(one, name), rel=1e-6), name
    assert max(column(one, "train/loss_camera")) > 0


def test_tracklets_train_as_one(run, run_several, run_args, drawn, tmp_path):
    """Their frames are shared out to the processes in blocks that know nothing of them.

    So are pairs of them, most of which part clusters.
    """
    names = sorted(f"{file.parent.name}/{file.name}" for file in drawn.glob("*_train/*.png"))
    rows = [f"{names[n]},{names[n + 8]},{int(n % 16 == 0)}" for n in range(0, 80, 4)]
    pairs = tmp_path / "pairs.csv"
    pairs.write_text("\n".join(["path_a,path_b,same", *rows, f"{names[7]},,", ""]))
    tracklets = (
        f"--pseudo_labels.pairs={pairs}",
        "--data.dataset.init_args.tracklets=names",
        "--pseudo_labels.labeler.k1=5",
        "--pseudo_labels.labeler.eps=0.8",
        "--trainer.max_epochs=2",
    )
    run("fit", *run_args, *FLOAT64, *tracklets, "--trainer.logger.init_args.version=one")
    options = (*several(2), *tracklets, "--trainer.logger.init_args.version=two")
    done = run_several(2, "fit", *run_args, *options)
    assert done.returncode == 0, done.stderr
    assert "labels are of 43 tracklets of 96 images" in done.stderr
    assert "pairs.csv: 5 pairs of one person, 15 of two, 1 images left out" in done.stderr
    one, two = tmp_path / "demo/one", tmp_path / "demo/two"
    for name in (*COMPARED, "labels/agreement_mean"):
        assert column(two, name) == pytest.approx(column(one, name), rel=1e-6), name


def test_frozen_layers_and_layer_decay_train_as_one(run, run_several, run_args, tmp_path):
    """Layers that learn again in mid-run have the same gradients on every process."""
    recipe = (
        "--layer_decay=0.5",
        "--lr_scheduler=WarmUpCosine",
        "--lr_scheduler.epochs=3",
        "--lr_scheduler.warm_up=1",
        "--trainer.callbacks+=FrozenLayers",
        "--trainer.callbacks.layers=[conv1,bn1,layer1]",
        "--trainer.callbacks.epochs=1",
    )
    run("fit", *run_args, *FLOAT64, *recipe, "--trainer.logger.init_args.version=one")
    options = (*several(2), *recipe, "--trainer.logger.init_args.version=two")
    done = run_several(2, "fit", *run_args, *options)
    assert done.returncode == 0, done.stderr
    one, two = (tmp_path / f"demo/{version}" for version in ("one", "two"))
    for name in COMPARED:
        assert column(two, name) == pytest.approx(column(one, name), rel=1e-6), name
    assert len(column(two, "train/loss")) == 9


def test_chunks_train_as_the_whole_batch(alone, run, run_args, tmp_path):
    run("fit", *run_args, *FLOAT64, "--model.network.chunk_size=8")
    folder = tmp_path / "demo/version_0"
    for name in COMPARED:
        assert column(folder, name) == pytest.approx(column(alone, name), rel=1e-6), name


@pytest.mark.slow
@pytest.mark.parametrize(("broken", "processes"), [("norm", 4), ("triplet", 2), ("statistics", 2)])
def test_what_would_make_them_differ(alone, run_process, run_args, tmp_path, broken, processes):
    """Negative controls: what this library does is needed, and the comparison would tell."""
    options = (*several(processes), "--data.num_workers=0")
    done = run_process("fit", *run_args, *options, program=("tests.broken", broken))
    assert done.returncode == 0, done.stderr
    folder = tmp_path / "demo/version_0"
    assert any(
        column(folder, name) != pytest.approx(column(alone, name), rel=1e-6) for name in COMPARED
    )


def test_with_the_callbacks_of_the_configs(run_launcher, run_args, checkpoint_args, tmp_path):
    """A progress bar reads the metrics on rank 0 alone: that must not talk to the others."""
    done = run_launcher(
        "fit",
        *run_args,
        *checkpoint_args,
        "--trainer.callbacks+=RichProgressBar",
        "--trainer.enable_progress_bar=true",
        "--trainer.devices=2",
        "--trainer.strategy=ddp",
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "demo/version_0/checkpoints/last.ckpt").is_file()
    assert "sync_dist" not in done.stderr


def test_an_error_of_rank_zero_ends_the_whole_job(run_launcher, run_args):
    done = run_launcher(
        "fit",
        *run_args,
        "--trainer.devices=2",
        "--trainer.strategy=ddp",
        "--pseudo_labels.labeler.min_samples=90",
    )
    assert done.returncode != 0
    assert "error: no class in" in done.stderr


@pytest.mark.slow
def test_torchrun_on_two_nodes(run, run_args, tmp_path):
    """A launch on two nodes, both of them this machine; in float32 the first step is the same."""
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
    outputs = [node.communicate(timeout=600)[0] for node in nodes]
    assert [node.returncode for node in nodes] == [0, 0], outputs
    found = column(tmp_path / "nodes/demo/version_0", "train/loss")
    assert len(found) == 2
    run("fit", *run_args, "--trainer.max_epochs=1", "--data.iterations=2")
    assert found[0] == pytest.approx(column(tmp_path / "demo/version_0", "train/loss")[0], rel=1e-5)


def test_processes_that_are_forked_hand_their_weights_back(run_process, run_args, tmp_path):
    """Those of ddp_spawn likewise, with more imports."""
    options = ("--trainer.devices=2", "--trainer.strategy=ddp_fork", "--trainer.max_epochs=1")
    done = run_process("fit", *run_args, *options)
    assert done.returncode == 0, done.stderr
    assert len(column(tmp_path / "demo/version_0", "train/loss")) == 3
