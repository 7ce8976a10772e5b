from __future__ import annotations

from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import RichProgressBar

from pplr_lightning.callbacks.progress import track


def make(*callbacks, **options):
    return Trainer(
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        callbacks=[*callbacks],
        **options,
    )


def test_shows_a_bar_among_lightnings_and_takes_it_away():
    bar = RichProgressBar()
    trainer = make(bar)
    bar._init_progress(trainer)
    seen = []
    for item in track(trainer, [1, 2, 3], "Extracting"):
        (task,) = bar.progress.tasks
        seen.append((item, task.description, task.completed, task.total))
    bar.progress.stop()
    assert seen == [(i + 1, "Extracting", i, 3) for i in range(3)]
    assert bar.progress.tasks == []


def test_goes_on_without_a_bar():
    assert list(track(make(enable_progress_bar=False), iter("ab"), "Extracting")) == ["a", "b"]
