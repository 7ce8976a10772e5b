from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.slow
@pytest.mark.parametrize("command", ["index", "report", "crops"])
def test_a_killed_command_leaves_nothing_half(command):
    script = ROOT / "benchmarks/kill_steps.py"
    done = subprocess.run(
        [sys.executable, script, "--only", command], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout
    lines = done.stdout.splitlines()
    assert all(line.endswith(" 0 not as wanted") for line in lines)
    assert int(lines[-1].split()[0]) >= 5
