from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import pytest
import rows
from lightning.pytorch import Trainer

import methods as benchmark
from pplr_lightning.callbacks.shared import History
from pplr_lightning.commands.training import run_cli

LENGTH = {"epochs": 10, "images": 512}


@pytest.mark.parametrize(
    "name",
    [
        name if name == "ICE with cameras" else pytest.param(name, marks=pytest.mark.slow)
        for name in benchmark.METHODS
    ],
)
def test_every_method_sees_as_many_images_from_the_same_start(name, drawn, monkeypatch):
    monkeypatch.setattr(Trainer, "fit", lambda *args, **given: None)
    cli = run_cli(["fit", *benchmark.arguments(name, str(drawn), "null", **LENGTH)])
    data, network = cli.datamodule, cli.model.network
    assert data.iterations * data.batch_size == 512
    assert (network.backbone_name, network.weights) == ("mobilenetv2_100", None)
    assert network.num_parts == (2 if name.startswith("PPLR") else 0)
    assert cli.trainer.max_epochs == cli.trainer.check_val_every_n_epoch == 10
    assert any(isinstance(one, benchmark.Peak) for one in cli.trainer.callbacks)


@pytest.mark.parametrize(
    ("name", "option"),
    [
        ("PPLR", "--lr_scheduler.init_args.step_size=4"),  # 20 of 50
        ("PPLR", "--model.init_args.aals_start_epoch=1"),  # 5 of 50
        ("ISE", "--lr_scheduler.init_args.step_size=4"),  # 30 of 70
        ("ICE", "--lr_scheduler.init_args.total_iters=2"),  # 10 of 40
    ],
)
def test_what_counts_epochs_is_in_proportion(name, option):
    assert option in benchmark.arguments(name, "root", "weights", **LENGTH)


def test_an_epoch_of_broken_batches():
    with pytest.raises(SystemExit, match="--images 100: ISE needs a multiple of its 256"):
        list(benchmark.arguments("ISE", "root", "weights", epochs=10, images=100))


def test_prints_what_has_ended_and_goes_on_after_an_error(tmp_path, monkeypatch, capsys):
    calls = []

    def finish(arguments):
        given = dict(one.removeprefix("--").split("=", 1) for one in arguments[1:])
        version = given["trainer.logger.version"]
        calls.append(version)
        if version == "MMT-1":
            raise ValueError("no class in 3 images")
        folder = Path(given["trainer.logger.save_dir"], "runs", version)
        folder.mkdir(parents=True)
        last = {"mAP": 0.25 if version == "SpCL-0" else 0.35, "rank-1": 0.5}
        (folder / "summary.json").write_text(json.dumps({"last": last}))
        (folder / "history.csv").write_text(
            "epoch,labels/clusters,labels/outliers,time/jaccard,time/training,time/evaluation,"
            "memory/peak\n-1,,,,,9,\n0,9,0.5,1,2,,2048\n1,12,0.25,1,2,9,1024\n"
        )

    monkeypatch.setattr(rows, "run_cli", finish)
    words = ["--root=r", "--weights=w", f"--runs={tmp_path}", "--methods", "MMT", "SpCL"]
    benchmark.main([*words, "--seeds", "0", "1"])
    assert calls == ["MMT-0", "SpCL-0", "MMT-1", "SpCL-1"]
    printed = capsys.readouterr().out.splitlines()
    assert printed[0] == "MMT, seed 1: no class in 3 images"
    assert printed[-1] == (
        "| SpCL | 2 | 30.0 ± 7.1 | 50.0 ± 0.0 | 12 ± 0 | 25.0 ± 0.0 | 6 ± 0 | 2.00 ± 0.00 | "
        "25.0, 35.0 |"
    )
    assert printed[-2].startswith("| MMT | 1 | 35.0 ± 0.0 |")


def test_the_most_memory_of_an_epoch():
    trainer = SimpleNamespace(
        callbacks=[], sanity_checking=False, current_epoch=0, is_last_batch=True
    )
    benchmark.forget_peak()
    held = benchmark.memory("VmRSS")
    ballast = bytearray(b"x") * 2**26  # 64 MiB, each page written
    del ballast
    benchmark.Peak().on_train_batch_end(trainer)
    assert History.of(trainer).rows[0][benchmark.PEAK] > held + 50
