from __future__ import annotations

import json
import re
from argparse import Namespace

import epoch as benchmark
import pytest

from pplr_lightning import RunRecord

from ..conftest import run_options


@pytest.fixture(scope="module")
def measured(drawn, tmp_path_factory):
    """What two small epochs print, with a trace of one step, and their Trainer."""
    folder = tmp_path_factory.mktemp("epoch")
    lines, trainers, report = [], [], benchmark.report
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("builtins.print", lambda line="", **_: lines.append(line))
        patch.setattr(benchmark, "report", lambda t, o: trainers.append(t) or report(t, o))
        trace = ["--trace", str(folder / "trace.json"), "--trace_steps=1"]
        benchmark.main([*run_options(drawn, folder), *trace, "--pure_steps=1", "--every=1"])
    return lines[-1], folder / "trace.json", trainers[0]


def test_a_row_for_each_stage(measured):
    text, _, trainer = measured
    assert "16 images of 64 x 32 a step, 3 steps an epoch; 96 training and 50 test images" in text
    rows = [line.strip("| ").split(" | ") for line in text.splitlines() if line[:1] == "|"][2:]
    assert [row[0] for row in rows] == [*benchmark.STAGES, "evaluation"]
    record = next(c for c in trainer.callbacks if isinstance(c, RunRecord))
    for name, seconds, *_ in rows:  # of the second epoch; the first warms up
        assert float(seconds) == pytest.approx(record.rows[-1][f"time/{name}"], abs=6e-4)
    assert sum(float(row[2]) for row in rows) == pytest.approx(100, abs=0.5)


def test_the_pure_step_is_part_of_a_step(measured):
    found = re.search(r"a step ([\d.]+) ms, the pure step ([\d.]+) ms: ([\d.]+) %", measured[0])
    step, pure, share = map(float, found.groups())
    assert pure > 0
    assert share == pytest.approx(100 * pure / step, rel=0.01)


def test_a_trace_of_the_steps(measured):
    events = json.loads(measured[1].read_text())["traceEvents"]
    assert any(event.get("name", "").startswith("aten::convolution") for event in events)


def test_sizes_are_options_of_the_drawn_set():
    options = benchmark._arguments(
        Namespace(size="market1501", root="data", trace=None, pure_steps=5),
        ["--trainer.max_epochs", "3", "--config", "a.yaml", "--config=b.yaml"],
        "folder",
    )
    assert options[:3] == ["--config", "a.yaml", "--config=b.yaml"]
    assert "--data.dataset.init_args.train_identities=761" in options
    assert options.index("--trainer.max_epochs") < options.index(
        "--data.dataset.init_args.junk=2000"
    )
