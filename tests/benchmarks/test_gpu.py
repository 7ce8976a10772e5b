from __future__ import annotations

import time

import gpu as benchmark
import pytest
import torch
from gpu import Part, Plan

from ..conftest import ROOT


@pytest.fixture
def plan(monkeypatch, tmp_path):
    """Runs commands as a plan on a pretended GPU and returns what was written."""

    def run(*parts: Part, minutes: float = 1.0) -> str:
        monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
        monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "a card")
        monkeypatch.setitem(benchmark.PLANS, "short", Plan(minutes, list(parts)))
        benchmark.main(["--out", str(tmp_path / "new/out.md")])
        return (tmp_path / "new/out.md").read_text()

    return run


def python(code: str, *, seconds: int = 60) -> Part:
    return Part(seconds, ["-c", code], [])


def test_without_a_gpu(monkeypatch, tmp_path):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(SystemExit, match="no CUDA device"):
        benchmark.main(["--out", str(tmp_path / "out.md")])


def test_writes_what_each_command_prints(plan, capsys):
    written = plan(python("print('| a table |')"), python("raise SystemExit('broken')"))
    assert written.startswith(f"a card, torch {torch.__version__}")
    assert "```\n\n| a table |\n" in written
    assert "ended with 1: broken" in written
    assert capsys.readouterr().out.split() == written.split()


def test_commands_find_the_library_and_each_other(plan):
    """Also where nothing is installed."""
    written = plan(python("import pplr_lightning, measuring; print(pplr_lightning.__file__)"))
    assert str(ROOT / "src") in written


def test_a_part_that_takes_too_long_is_stopped_with_all_it_started(plan, tmp_path):
    late = tmp_path / "late"
    child = f"import time; time.sleep(4); open({str(late)!r}, 'w')"
    code = (
        "import subprocess, sys, time; print('half of it');"
        f"subprocess.Popen([sys.executable, '-c', {child!r}]); time.sleep(60)"
    )
    written = plan(python(code, seconds=2), python("print('the next')"))
    assert "half of it\n\nstopped after 2 s\n" in written
    assert "the next" in written
    time.sleep(4)
    assert not late.exists()


def test_all_ends_within_the_time_given(plan):
    written = plan(python("import time; time.sleep(60)"), python("print('no')"), minutes=0.05)
    assert "stopped after 3 s" in written
    assert "left out: no time is left" in written


@pytest.mark.slow  # a minute of imports
def test_a_dry_run_runs_every_command_of_the_short_plan(tmp_path, capsys):
    benchmark.main(["--dry_run", "--minutes", "30", "--out", str(tmp_path / "out.md")])
    written = (tmp_path / "out.md").read_text()
    assert "ended with" not in written
    assert "stopped" not in written
    assert written.count("```bash\npython ") == len(benchmark.PLANS["short"].parts)
    for words in ("300 images, 16 dimensions", "| plain |", "| training |", "collected"):
        assert words in written


def test_names_files_that_there_are():
    parts = [part for plan in benchmark.PLANS.values() for part in plan.parts]
    files = [part.words[0] for part in parts if part.words[0] != "-m"]
    assert all((ROOT / file).is_file() for file in files)
