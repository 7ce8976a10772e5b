from __future__ import annotations

import pytest
import torch
import uvicorn

from pplr_lightning.labelers import Space
from pplr_lightning.labelers.assignment import Assignment

from ..tiny import vectors

pytest.importorskip("gradio")


@pytest.fixture
def command(tmp_path, monkeypatch):
    """Options of the command, for clusters of images that are not there."""
    for name in ("GRADIO_TEMP_DIR", "GRADIO_ANALYTICS_ENABLED"):
        monkeypatch.setenv(name, "False")  # and back to what it was
    monkeypatch.setattr("signal.signal", lambda *_: None)
    names = [f"{number}.png" for number in range(30)]
    space = Space.of(vectors(30))
    (tmp_path / "crops").mkdir()
    made = Assignment.of(space, torch.arange(30) % 3, root=tmp_path / "crops", names=names)
    made.write(tmp_path / "labels/candidate1.parquet")
    return [f"--labels={tmp_path / 'labels'}", f"--out={tmp_path / 'a.parquet'}", "--port=0"]


def test_serves_the_page(run, command, capsys, monkeypatch, tmp_path):
    served = []
    monkeypatch.setattr(uvicorn.Server, "run", lambda server, sockets: served.append(sockets))
    run("correct", *command)
    assert len(served) == 1
    out = capsys.readouterr().out
    assert out.startswith("3 clusters of 30 images: open http://127.0.0.1:")
    (tmp_path / "crops").rename(tmp_path / "moved")
    run("correct", *command, f"--root={tmp_path / 'moved'}")
    assert len(served) == 2


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (
            ["--candidate=2"],
            "candidate2.parquet: no such file; `labels` writes one of each candidate, and none",
        ),
        (["--out=a.csv"], "a.csv: answers are written as Parquet"),
        (["--root=gone"], "gone: no such folder; give the one that the images are in with --root"),
        (["--host=0.0.0.0"], "--host 0.0.0.0: other machines could reach it"),
    ],
)
def test_complaints(run, command, capsys, more, message):
    with pytest.raises(SystemExit) as stop:
        run("correct", *command, *more)
    assert stop.value.code == 1
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert line.startswith("error: ")
    assert message in line


def test_gradio_is_missing(run, command, capsys, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "uvicorn", None)
    with pytest.raises(SystemExit):
        run("correct", *command)
    assert "correct needs a package that is missing" in capsys.readouterr().err
