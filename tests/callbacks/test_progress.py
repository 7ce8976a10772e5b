from __future__ import annotations

import io
import logging
import time

import pytest
import rich
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import RichProgressBar

from pplr_lightning.callbacks import progress
from pplr_lightning.callbacks.progress import say, show_stage, track


def make(*callbacks, **options):
    return Trainer(
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        callbacks=[*callbacks],
        **options,
    )


@pytest.fixture
def started():
    """A Trainer whose bar draws, on a terminal or not."""
    bars = []

    def start(*, terminal=True):
        bar = RichProgressBar(console_kwargs={"force_terminal": terminal, "file": io.StringIO()})
        trainer = make(bar)
        bar.on_sanity_check_start(trainer, None)
        bars.append(bar)
        return trainer, bar

    yield start
    for bar in bars:
        bar.progress.stop()
    rich.reconfigure(file=None)


def test_shows_a_bar_among_lightnings_and_takes_it_away(started):
    trainer, bar = started()
    seen = []
    for item in track(trainer, [1, 2, 3], "Extracting"):
        (task,) = bar.progress.tasks
        seen.append((item, task.description, task.completed, task.total))
    assert seen == [(i + 1, "Extracting", i, 3) for i in range(3)]
    assert bar.progress.tasks == []


def test_a_bar_of_an_iteration_that_breaks_off_is_taken_away(started):
    trainer, bar = started()

    def breaks_off():
        for _ in track(trainer, [1, 2], "Extracting"):
            raise LookupError

    with pytest.raises(LookupError):
        breaks_off()
    assert bar.progress.tasks == []


def test_goes_on_without_a_bar():
    assert list(track(make(enable_progress_bar=False), iter("ab"), "Extracting")) == ["a", "b"]


def test_draws_nothing_without_a_terminal(started):
    trainer, bar = started(terminal=False)
    for _ in track(trainer, [1], "Extracting"):
        assert bar.progress.tasks == []
    with show_stage(trainer, "jaccard", None):
        assert bar.progress.tasks == []


def test_counts_a_stage_where_there_is_something_to_count(started):
    trainer, bar = started()
    with show_stage(trainer, "agreement", 3) as advance:
        (task,) = bar.progress.tasks
        advance()
        assert (task.description, task.completed, task.total) == ("Cross agreement", 1, 3)
    assert bar.progress.tasks == []


def test_lets_the_time_of_a_stage_go_on_where_there_is_not(started, monkeypatch):
    monkeypatch.setattr(progress, "TICK", 0.01)
    trainer, bar = started()
    drawn = []
    monkeypatch.setattr(bar, "refresh", lambda: drawn.append(time.perf_counter()))
    with show_stage(trainer, "jaccard", None):
        (task,) = bar.progress.tasks
        assert (task.description, task.total) == ("Jaccard distance", float("inf"))
        deadline = time.perf_counter() + 60
        while len(drawn) < 4 and time.perf_counter() < deadline:
            time.sleep(0.01)
    assert len(drawn) >= 4
    count = len(drawn)
    time.sleep(0.05)
    assert len(drawn) == count  # the clock stands


def test_a_stage_without_a_title_is_not_shown(started):
    trainer, bar = started()
    with show_stage(trainer, "extraction", None):  # which has a bar of its own
        assert bar.progress.tasks == []


class TestSay:
    def test_above_the_bars(self, started, caplog):
        trainer, bar = started()
        say(trainer, "epoch 3: [bold] 1.5")
        assert "epoch 3: [bold] 1.5" in bar.progress.console.file.getvalue()
        assert "epoch 3" not in caplog.text

    def test_by_the_logger_without_a_terminal(self, started, caplog):
        trainer, bar = started(terminal=False)
        with caplog.at_level(logging.INFO):
            say(trainer, "epoch 3")
        assert "epoch 3" not in bar.progress.console.file.getvalue()
        assert "epoch 3" in caplog.text
