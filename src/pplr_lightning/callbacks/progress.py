"""Progress of the stages outside Lightning's own loops."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator, Sized
from contextlib import contextmanager
from typing import TypeVar

from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import RichProgressBar
from lightning.pytorch.utilities import rank_zero_info
from rich.progress import Progress

from pplr_lightning.labelers.stages import Advance

T = TypeVar("T")

TITLES = {
    "neighbors": "Searching neighbours",
    "jaccard": "Jaccard distance",
    "choice": "Choosing settings",
    "clustering": "Clustering",
    "agreement": "Cross agreement",
    "scoring": "Scoring rankings",
}
TICK = 0.5  # seconds between two looks at the clock in a stage that counts nothing


def track(trainer: Trainer, iterable: Iterable[T], description: str) -> Iterator[T]:
    """Yields from `iterable`, shown as a bar among those of the Trainer's `RichProgressBar`.

    Two live displays cannot share a terminal, so the bar joins the one there is; without one, or
    without a terminal, nothing is drawn.
    """
    bar = _bar(trainer)
    if bar is None:
        yield from iterable
        return
    total = len(iterable) if isinstance(iterable, Sized) else None
    with _task(bar, description, total or 1) as advance:
        for item in iterable:
            yield item
            advance()


@contextmanager
def show_stage(trainer: Trainer, name: str, count: int | None) -> Iterator[Advance]:
    """Shows a stage of `TITLES` as a bar beside the Trainer's; see `stages.Stages`.

    What cannot be counted gets a bar that moves to and fro, and its time.
    """
    bar = _bar(trainer) if name in TITLES else None
    if bar is None:
        yield lambda: None
    elif count is not None:
        with _task(bar, TITLES[name], count) as advance:
            yield advance
    else:
        with _task(bar, TITLES[name], float("inf")) as advance, _ticking(bar):
            yield advance


def say(trainer: Trainer, line: str) -> None:
    """Prints a line on rank 0: above the bars where there are some, else by Lightning's logger."""
    bar = _bar(trainer)
    if bar is None:
        rank_zero_info(line)
    else:
        _display(bar).console.print(line, markup=False, highlight=False, soft_wrap=True)


def _bar(trainer: Trainer) -> RichProgressBar | None:
    """Finds the bar to draw beside; Lightning turns it off on every rank but the first."""
    bar = trainer.progress_bar_callback
    if not isinstance(bar, RichProgressBar) or bar.is_disabled or bar.progress is None:
        return None
    console = bar.progress.console
    return bar if console.is_terminal or console.is_jupyter else None


def _display(bar: RichProgressBar) -> Progress:
    return bar.progress  # type: ignore[return-value]  # `_bar` gives none without


@contextmanager
def _task(bar: RichProgressBar, description: str, total: float) -> Iterator[Advance]:
    display = _display(bar)
    task = display.add_task(description, total=total)

    def advance() -> None:
        display.update(task, advance=1)
        bar.refresh()

    bar.refresh()
    try:
        yield advance
    finally:
        display.remove_task(task)
        bar.refresh()


@contextmanager
def _ticking(bar: RichProgressBar) -> Iterator[None]:
    """Has the time on the bar go on while this thread computes: Lightning draws only when asked."""
    done = threading.Event()

    def tick() -> None:
        while not done.wait(TICK):
            bar.refresh()

    clock = threading.Thread(target=tick, daemon=True)
    clock.start()
    try:
        yield
    finally:
        done.set()
        clock.join()
