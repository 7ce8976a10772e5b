"""Loops over rows, compiled by numba, on as many threads as torch uses."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import numba
import torch

T = TypeVar("T")
Function = TypeVar("Function", bound=Callable[..., Any])


def compiled(function: Function, *, fastmath: bool | set[str] = False) -> Function:
    """Compile a loop at its first call; it runs without the interpreter's lock.

    The machine code is kept beside the source or in the user's cache folder (``NUMBA_CACHE_DIR``
    names another), so that each machine compiles once. ``fastmath`` is numba's.
    """
    options: dict[str, Any] = {"nogil": True, "fastmath": fastmath}
    try:
        return numba.njit(cache=True, **options)(function)
    except RuntimeError:  # there is no folder to write to; each process compiles for itself
        return numba.njit(**options)(function)


def over_rows(work: Callable[[int, int], T], rows: range, *, chunk: int) -> list[T]:
    """Call ``work(start, stop)`` for consecutive chunks of rows, on threads.

    Args:
        work: Mostly compiled code, so that threads do not wait for each other.
        rows: None still call ``work`` once, for an empty result of the right type.
        chunk: Rows of one call. The results must not depend on it.

    Returns:
        The results in the order of the rows.
    """
    starts = range(rows.start, max(rows.stop, rows.start + 1), chunk)
    with ThreadPoolExecutor(torch.get_num_threads()) as threads:
        return list(threads.map(lambda start: work(start, min(start + chunk, rows.stop)), starts))
