from __future__ import annotations

from pathlib import Path

import pytest
import torch
import yaml

from pplr_lightning.commands import demo

from ..conftest import ROOT


@pytest.fixture
def configs(tmp_path, drawn):
    """The demo's own configs, made small."""
    folder = tmp_path / "configs"
    folder.mkdir()
    config = yaml.safe_load((ROOT / "configs/demo.yaml").read_text())
    config["data"] |= {
        "dataset": {
            "class_path": "pplr_lightning.data.Market1501",
            "init_args": {"root": str(drawn)},
        },
        "image_size": [64, 32],
        "batch_size": 16,
        "iterations": 2,
    }
    config["model"]["init_args"]["network"]["norm_batch_size"] = 8
    config["model"]["init_args"]["agreement_k"] = 4
    config["pseudo_labels"]["labeler"]["init_args"] |= {"k1": 6, "k2": 2, "min_samples": 2}
    config["figures"] = {"names": []}
    config["trainer"] |= {"max_epochs": 1, "check_val_every_n_epoch": 1}
    (folder / "demo.yaml").write_text(yaml.safe_dump(config))
    return folder


def test_prints_three_stages(configs, tmp_path, run, capsys):
    """From ImageNet's weights as the package carries them."""
    runs = tmp_path / "runs"
    rows = run("demo", "--configs", str(configs), "--runs", str(runs), "--seed", "3")
    assert list(rows) == ["random weights", "ImageNet's weights", "after PPLR"]
    assert all(0 < values["mAP"] <= 1 for values in rows.values())
    assert rows["random weights"] != rows["ImageNet's weights"] != rows["after PPLR"]
    output = capsys.readouterr().out
    assert all(stage in output for stage in rows)
    assert "--seed_everything=3" in output

    last = runs / "demo/pplr-3/checkpoints/last.ckpt"
    again = run("demo", "--configs", str(configs), "--runs", str(runs), "--weights", str(last))
    assert list(again) == ["random weights", "weights of last.ckpt", "after PPLR"]
    assert again["weights of last.ckpt"] == pytest.approx(rows["after PPLR"])


def test_finds_its_own_configs_from_anywhere(tmp_path, run, monkeypatch):
    """Also where there is no checkout: `tests/test_package.py` sees them in the wheel."""
    called = []

    def stop(words):
        called.extend(words)
        raise KeyboardInterrupt

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(demo, "run_cli", stop)
    with pytest.raises(KeyboardInterrupt):
        run("demo")
    config = Path(called[1].removeprefix("--config="))
    assert config == ROOT / "configs/demo.yaml"
    assert config.is_file()


def test_missing_configs(tmp_path, run, capsys):
    with pytest.raises(SystemExit) as stop:
        run("demo", "--configs", str(tmp_path))
    assert stop.value.code not in (0, None)
    assert "demo.yaml" in capsys.readouterr().err


def test_places_that_are_none_are_told_before_any_work(tmp_path, run, capsys):
    (tmp_path / "file").touch()
    for option, what in (("weights", "no such file"), ("runs", "is a file; name a folder")):
        path = tmp_path / ("file" if option == "runs" else "nope.pth")
        with pytest.raises(SystemExit):
            run("demo", f"--{option}={path}")
        assert capsys.readouterr().err == f"error: --{option} {path}: {what}\n"


@pytest.mark.parametrize("content", [b"no weights", None])
def test_weights_that_are_none_are_told_before_the_first_stage(
    tmp_path, run, capsys, monkeypatch, content
):
    monkeypatch.setattr(demo, "run_cli", None)  # no stage is started
    path = tmp_path / "odd.pth"
    if content is None:
        torch.save({"fc.weight": torch.ones(2)}, path)
    else:
        path.write_bytes(content)
    with pytest.raises(SystemExit):
        run("demo", f"--weights={path}")
    error = capsys.readouterr().err
    assert error.startswith(f"error: {path}: no")
    assert error.count("\n") == 1
