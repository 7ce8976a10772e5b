from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import rows
from rows import row_parser, spread, train_row


@pytest.fixture
def options(tmp_path):
    parser = row_parser("Rows.", runs=str(tmp_path))
    return parser.parse_args(["--seeds", "0", "3"])


def finish(arguments: list[str]) -> None:
    """Leaves what a run leaves."""
    given = dict(argument.removeprefix("--").split("=", 1) for argument in arguments[1:])
    names = ("save_dir", "name", "version")
    folder = Path(*(given[f"trainer.logger.{name}"] for name in names))
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "summary.json").write_text(json.dumps({"last": {"mAP": 0.5}}))
    (folder / "history.csv").write_text("epoch,labels/ari,train/loss\n0,0.25,2\n1,0.5,\n")


def test_trains_each_seed_once(options, monkeypatch, tmp_path):
    calls = []
    monkeypatch.setattr(rows, "run_cli", lambda args: calls.append(args) or finish(args))
    first, second = train_row("a row", ["--config=c.yaml"], options, ["--data.iterations=1"])
    assert calls[1] == [
        "fit",
        "--config=c.yaml",
        "--seed_everything=3",
        f"--trainer.logger.save_dir={tmp_path}",
        "--trainer.logger.name=runs",
        "--trainer.logger.version=a-row-3",
        "--data.iterations=1",
    ]
    assert first.summary == second.summary == {"last": {"mAP": 0.5}}
    assert first.course("labels/ari") == [0.25, 0.5]
    assert first.course("labels/outliers") == []

    again = train_row("a row", ["--config=c.yaml"], options, [])
    assert len(calls) == 2
    assert again == [first, second]


def test_goes_on_with_what_has_begun(options, monkeypatch, tmp_path):
    calls = []
    monkeypatch.setattr(rows, "run_cli", lambda args: calls.append(args) or finish(args))
    folder = tmp_path / "runs/a-row-3/checkpoints"
    folder.mkdir(parents=True)
    for age, name in enumerate(("last.ckpt", "interrupted.ckpt")):
        (folder / name).touch()
        os.utime(folder / name, (1000 - age, 1000 - age))
    train_row("a row", [], options, [])
    given = [[word for word in call if "ckpt_path" in word] for call in calls]
    assert given == [[], [f"--ckpt_path={folder / 'last.ckpt'}"]]


def test_spread():
    assert spread([0.5]) == "50.0 ± 0.0"
    assert spread([0.1, 0.2, 0.3]) == "20.0 ± 10.0"
