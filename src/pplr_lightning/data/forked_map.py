"""A `map` whose calls are spread over processes."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
import warnings
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from threading import Thread
from typing import Any

_CHUNK = 16  # items sent to a process at once


def free_cores() -> int:
    """Returns how many processes may compute: the cores of this one, at most `OMP_NUM_THREADS`.

    1 in a daemonic process, such as a loader's worker, which may start no others.
    """
    if multiprocessing.current_process().daemon:
        return 1
    cores = len(os.sched_getaffinity(0))
    limit = os.environ.get("OMP_NUM_THREADS", "")
    return min(cores, max(1, int(limit))) if limit.isdecimal() else cores


@contextmanager
def forked_map(processes: int) -> Iterator[Callable[[Callable[..., Any], Iterable[Any]], Any]]:
    """Lends a `map`, whose results come in order, over processes forked from this one.

    Forked ones have whatever this one has imported and need no main module that can be imported
    twice. What they call must leave other threads' locks and the device alone.

    Args:
        processes: How many; below 2 it is the `map` of this process.

    Yields:
        The `map`; it starts at once.

    Raises:
        RuntimeError: A process was killed.

    Example:
        >>> with forked_map(2) as map_in_processes:
        ...     list(map_in_processes(abs, [-1, 2]))
        [1, 2]
    """
    if processes < 2:
        yield map
        return
    pool = ProcessPoolExecutor(
        processes,
        mp_context=multiprocessing.get_context("fork"),
        initializer=_follow,
        initargs=(os.getpid(),),
    )

    def spread(function: Callable[..., Any], items: Iterable[Any]) -> Any:
        with warnings.catch_warnings():
            # Python 3.12 warns that other threads may hold locks; see above.
            warnings.filterwarnings("ignore", ".*fork", DeprecationWarning)
            return pool.map(function, items, chunksize=_CHUNK)

    try:
        yield spread
    except BrokenProcessPool as error:
        raise RuntimeError(
            f"one of {processes} processes was killed, maybe for want of memory; "
            "OMP_NUM_THREADS=1 does with one"
        ) from error
    finally:
        pool.shutdown(cancel_futures=True)


def _follow(parent: int) -> None:
    """Has a forked process end with its parent, however that ends, and at no other's signal."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C goes to both; the parent sees to it
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    Thread(target=_await_end, args=(parent,), daemon=True).start()


def _await_end(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(0.5)
    os._exit(1)
