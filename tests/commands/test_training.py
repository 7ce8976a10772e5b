from __future__ import annotations

import csv

import pytest
import torch
import yaml

from pplr_lightning.methods import ReIDModule


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


def test_a_table_of_pairs_that_is_not_there_is_told_before_the_data_are_read(
    run, run_args, tmp_path, capsys
):
    options = ("--data.dataset.init_args.root=nowhere", "--pseudo_labels.pairs=gone.parquet")
    with pytest.raises(SystemExit):
        run("fit", *run_args, *options)
    assert "pseudo_labels.pairs: gone.parquet: no such table" in capsys.readouterr().err


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


def test_what_comes_from_the_environment_is_named_and_not_told(
    run, run_args, checkpoint_args, tmp_path, tiny_checkpoint, drawn, monkeypatch
):
    secrets = {
        "PADDING": "7",
        "ROOT": str(drawn),
        "WEIGHTS": str(tiny_checkpoint),
        "KEY": "sesame",
    }
    for name, value in secrets.items():
        monkeypatch.setenv(f"SECRET_{name}", value)
    extra = tmp_path / "extra.yaml"
    extra.write_text(
        "data: {dataset: {init_args: {root: '${oc.env:SECRET_ROOT}'}},\n"
        "  padding: '${oc.env:SECRET_PADDING}'}\n"
        "trainer: {logger: {init_args: {prefix: 'a-${oc.env:SECRET_KEY}'}}}\n"
    )
    weights = "--model.network.weights=${oc.env:SECRET_WEIGHTS}"
    run("fit", *run_args, *checkpoint_args, f"--config={extra}", weights,
        "--trainer.max_epochs=1")  # fmt: skip
    folder = tmp_path / "demo/version_0"
    for file in ("config.yaml", "hparams.yaml"):
        options = options_in(folder / file)
        assert options["data"]["padding"] == 7
        assert options["trainer"]["logger"]["init_args"]["prefix"] == "a-${oc.env:SECRET_KEY}"
        assert options["data"]["dataset"]["init_args"]["root"] == "${oc.env:SECRET_ROOT}"
    for file in ("config.yaml", "hparams.yaml", "report.html", "checkpoints/last.ckpt"):
        content = (folder / file).read_bytes()
        assert b"${oc.env:SECRET_WEIGHTS}" in content
        for name in ("ROOT", "WEIGHTS", "KEY"):
            assert secrets[name].encode() not in content, (file, name)
    ReIDModule.load_from_checkpoint(folder / "checkpoints/last.ckpt")
    run("fit", f"--config={folder / 'config.yaml'}", "--trainer.max_epochs=2",
        "--ckpt_path=last")  # fmt: skip
    assert "${oc.env:SECRET_ROOT}" in (tmp_path / "demo/version_1/config.yaml").read_text()


def test_the_config_is_written_through_no_link(run, run_args, tmp_path):
    (tmp_path / "demo/mine").mkdir(parents=True)
    (tmp_path / "precious").write_text("precious")
    (tmp_path / "demo/mine/config.yaml").symlink_to(tmp_path / "precious")
    run("fit", *run_args, "--trainer.logger.init_args.version=mine", "--trainer.max_epochs=1")
    assert (tmp_path / "precious").read_text() == "precious"
    assert options_in(tmp_path / "demo/mine/config.yaml")["trainer"]["max_epochs"] == 1


def test_names_what_the_method_brought(run, run_args, tmp_path):
    """Of a config that says nothing of optimiser, schedule or network."""
    own = ("model.network", "optimizer", "lr_scheduler", "config=", "trainer.logger")
    options = [one for one in run_args if not one.removeprefix("--").startswith(own)]
    run("fit", *options, "--model.network.backbone=test_resnet", "--model.network.weights=null",
        "--trainer.logger=CSVLogger", f"--trainer.logger.save_dir={tmp_path}",
        "--trainer.max_epochs=1", "--pseudo_labels.labeler.eps=0.7")  # fmt: skip
    config = options_in(tmp_path / "lightning_logs/version_0/config.yaml")
    assert config["optimizer"]["class_path"] == "torch.optim.Adam"
    assert config["optimizer"]["init_args"]["lr"] == 3.5e-4
    assert config["lr_scheduler"]["init_args"]["step_size"] == 20
