from __future__ import annotations

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
