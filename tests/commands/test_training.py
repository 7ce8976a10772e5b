from __future__ import annotations

import csv

import pytest
import torch
import yaml


def options_in(file) -> dict:
    return yaml.safe_load(file.read_text())


def test_is_in_the_runs_folder_and_with_the_logger(run, run_args, tmp_path):
    extra = tmp_path / "extra.yaml"
    extra.write_text("data:\n  eval_batch_size: ${.iterations}\n")
    run("fit", *run_args, f"--config={extra}", "--trainer.max_epochs=1")
    config = options_in(tmp_path / "demo/version_0/config.yaml")
    assert config["data"]["eval_batch_size"] == 3
    assert config["figures"]["names"] == []
    logged = options_in(tmp_path / "demo/version_0/hparams.yaml")
    assert logged["data"] == config["data"]
    assert logged["model"]["init_args"]["network"]["init_args"]["backbone"] == "test_resnet"


def test_the_file_runs_again(run, run_args, tmp_path):
    run("fit", *run_args, "--trainer.max_epochs=1")
    folder = tmp_path / "demo/version_0"
    run("fit", f"--config={folder / 'config.yaml'}")
    again = options_in(tmp_path / "demo/version_1/config.yaml")
    assert again == options_in(folder / "config.yaml")


def test_without_a_logger(run, run_args, tmp_path):
    options = [one for one in run_args if "trainer.logger" not in one]
    run("validate", *options, "--trainer.logger=false", f"--trainer.default_root_dir={tmp_path}")
    assert options_in(tmp_path / "config.yaml")["pseudo_labels"]["labeler"]["init_args"]["k1"] == 6


RECIPE = [
    "--layer_decay=0.5",
    "--optimizer=AdamW",
    "--optimizer.lr=1e-3",
    "--lr_scheduler=WarmUpCosine",
    "--lr_scheduler.epochs=2",
    "--lr_scheduler.warm_up=1",
    "--lr_scheduler.start=0.1",
    "--trainer.callbacks+=FrozenLayers",
    "--trainer.callbacks.layers=[conv1,bn1]",
    "--trainer.callbacks.epochs=1",
    "--trainer.callbacks+=LearningRateMonitor",
]


def test_layer_decay_warm_up_and_frozen_layers(run, run_args, checkpoint_args, tmp_path):
    run("fit", *run_args, *RECIPE, *checkpoint_args)
    folder = tmp_path / "demo/version_0"
    with (folder / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    rates = [[float(v) for n, v in row.items() if "lr-AdamW" in n and v] for row in rows]
    first, second = sorted({tuple(row) for row in rates if row})
    assert first[-1] == pytest.approx(1e-4)  # of the heads, in the first epoch
    assert second[-1] == pytest.approx(1e-3)
    shares = [0.5 ** (len(first) - 1 - layer) for layer in range(len(first))]
    assert first == pytest.approx([1e-4 * share for share in shares])
    state = torch.load(folder / "checkpoints/last.ckpt", weights_only=True)
    assert len(state["optimizer_states"][0]["param_groups"]) == len(first)
    options = options_in(folder / "config.yaml")
    assert options["layer_decay"] == 0.5
    assert options["lr_scheduler"]["class_path"].endswith("WarmUpCosine")
    run("fit", *run_args, *RECIPE, "--trainer.max_epochs=3", "--ckpt_path=last")  # goes on


@pytest.mark.parametrize(
    ("options", "rates"),
    [
        (["--lr_scheduler=CosineAnnealingLR", "--lr_scheduler.T_max=2"], [3.5e-4, 1.75e-4]),
        (["--optimizer=SGD", "--optimizer.lr=0.01"], [0.01, 0.01]),
    ],
)
def test_optimizer_and_schedule_each_by_itself(run, run_args, tmp_path, options, rates):
    run("fit", *run_args, "--optimizer=null", "--lr_scheduler=null", *options)
    folder = tmp_path / "demo/version_0"
    with (folder / "history.csv").open() as file:
        found = [float(row["lr"]) for row in csv.DictReader(file) if row["lr"]]
    assert found == pytest.approx(rates)
    kept = options_in(folder / "config.yaml")
    given = options[0].split("=")[1]
    assert kept[options[0].removeprefix("--").split("=")[0]]["class_path"].endswith(given)
    run("fit", f"--config={folder / 'config.yaml'}", "--trainer.max_epochs=1")


def test_layer_decay_out_of_range(run, run_args):
    with pytest.raises(SystemExit):
        run("fit", *run_args, "--layer_decay=0")
