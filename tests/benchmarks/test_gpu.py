from __future__ import annotations

import gpu as benchmark
import pytest
import torch

from ..conftest import ROOT


def test_without_a_gpu(monkeypatch, tmp_path):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(SystemExit, match="no CUDA device"):
        benchmark.main(["--out", str(tmp_path / "out.md")])


def test_writes_what_each_command_prints(monkeypatch, tmp_path):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    commands = [["-c", "print('| a table |')"], ["-c", "raise SystemExit('broken')"]]
    monkeypatch.setattr(benchmark, "COMMANDS", commands)
    benchmark.main(["--out", str(tmp_path / "new/out.md")])
    written = (tmp_path / "new/out.md").read_text()
    assert "```\n\n| a table |\n" in written
    assert "failed with 1: broken" in written


def test_names_files_that_there_are():
    files = [words[0] for words in benchmark.COMMANDS if words[0] != "-m"]
    assert all((ROOT / file).is_file() for file in files)
