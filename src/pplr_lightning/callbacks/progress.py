"""Progress of the stages outside Lightning's own loops."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sized
from typing import TypeVar

from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import RichProgressBar

T = TypeVar("T")


def track(trainer: Trainer, iterable: Iterable[T], description: str) -> Iterator[T]:
    """Yields from `iterable`, shown as a bar among those of the Trainer's `RichProgressBar`.

    Two live displays cannot share a terminal, so the bar joins the one there is; without one
    nothing is drawn.
    """
    bar = trainer.progress_bar_callback
    if not isinstance(bar, RichProgressBar) or bar.is_disabled or bar.progress is None:
        yield from iterable
        return
    total = len(iterable) if isinstance(iterable, Sized) else None
    task = bar.progress.add_task(description, total=total or 1)
    try:
        for item in iterable:
            yield item
            bar.progress.update(task, advance=1)
            bar.refresh()
    finally:
        bar.progress.remove_task(task)
        bar.refresh()
