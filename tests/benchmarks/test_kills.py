from __future__ import annotations

import signal

import pytest
import torch
from kills import Bench, same


@pytest.mark.slow
def test_a_run_that_was_killed_twice_ends_in_the_same_bits(tmp_path):
    bench = Bench(tmp_path, workers=1)
    bench.draw()
    expected = bench.finish("whole")
    assert len(expected["state_dict"]) > 100
    assert bench.kill("run", "middle of an epoch", 3, signal.SIGKILL, 0.0) == -signal.SIGKILL
    assert bench.kill("run", "writing a checkpoint", 1, signal.SIGTERM, 0.0) == 143
    paths = bench.checkpoints("run")
    assert {path.name for path in paths} >= {"step.ckpt", "interrupted.ckpt"}
    for path in paths:
        torch.load(path, weights_only=True)
    assert same(bench.finish("run"), expected)


def test_same_sees_a_single_bit():
    state = {"weights": [torch.ones(3), 2]}
    assert same(state, {"weights": [torch.ones(3), 2]})
    other = torch.ones(3)
    other[1] += 2**-23
    assert not same(state, {"weights": [other, 2]})
