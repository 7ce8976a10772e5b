"""The stages of an epoch outside training: how long each takes, and who is told of it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

Advance = Callable[[], None]
Show = Callable[[str, int | None], AbstractContextManager[Advance]]


@contextmanager
def show_nothing(name: str, count: int | None) -> Iterator[Advance]:
    """Tells nobody of a stage."""
    yield lambda: None


class Stages:
    """Measures the stages of one label stage by the clock on the wall.

    A stage ends with its results on the CPU, so the device is not asked to wait for anything.

    Args:
        show: Told of each stage as it begins and ends: its name and what it counts, None where it
            cannot be counted; gives a function to call after each thing counted.

    Attributes:
        seconds: Of each stage so far, by name.
        ended: Clock (`time.perf_counter`) at the end of the last stage; 0 before it.
    """

    def __init__(self, show: Show = show_nothing) -> None:
        self._show = show
        self.seconds: dict[str, float] = {}
        self.ended = 0.0

    @contextmanager
    def __call__(self, name: str, count: int | None = None) -> Iterator[Advance]:
        """Measures what is done within as the stage `name`."""
        start = time.perf_counter()
        with self._show(name, count) as advance:
            yield advance
        self.ended = time.perf_counter()
        self.seconds[name] = self.seconds.get(name, 0.0) + self.ended - start
