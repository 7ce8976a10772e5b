"""Rows that are divided over processes, and what the processes tell each other."""

from __future__ import annotations

import math
from collections.abc import Iterator
from copy import copy
from itertools import pairwise
from threading import Event
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from scipy import sparse
from torch import Tensor

BLOCK_BYTES = 2**28  # rows of another process that are held at once


class Share:
    """This process's consecutive rows of a matrix of N rows; all of them without a group.

    A context: within it each process works on its rows and all exchange results in the same order.
    If one raises, the others raise too, at their next exchange, instead of waiting for it.

    Args:
        rows: Rows of this process; the processes hold them in the order of their rank.
        group: Processes that divide the matrix, over CPU tensors (gloo). None: this one alone.

    Attributes:
        start: First row of this process.
        stop: Row after its last one.
        total: Rows of all processes, N.
        received: Bytes received from the other processes so far.
    """

    def __init__(self, rows: int, group: dist.ProcessGroup | None = None) -> None:
        self._group = group
        self._failed = Event()
        self.rank = dist.get_rank(group) if group is not None else 0
        self.received = 0
        self._counts: list[int] = self._exchange(rows)
        self.start = sum(self._counts[: self.rank])
        self.stop = self.start + rows
        self.total = sum(self._counts)

    @property
    def alone(self) -> bool:
        """Tell whether this process has all rows."""
        return self._group is None

    @property
    def rows(self) -> range:
        """Return the rows of this process."""
        return range(self.start, self.stop)

    @property
    def largest(self) -> int:
        """Return the rows of the process that has most."""
        return max(self._counts)

    def divide(self, total: int) -> Share:
        """Divide other rows evenly among the same processes, within the same context."""
        other = copy(self)  # an error that either hears of is no news to the other
        world = len(self._counts)
        bounds = [total * rank // world for rank in range(world + 1)]
        other._counts = [stop - start for start, stop in pairwise(bounds)]
        other.start, other.stop, other.total = bounds[self.rank], bounds[self.rank + 1], total
        other.received = 0
        return other

    def blocks(self, rows: Tensor, *, whole: bool = False) -> Iterator[tuple[int, Tensor]]:
        """Yield the rows of all processes, (start, block) in order, a block at a time.

        Args:
            rows: This process's (n, ...) CPU rows.
            whole: Yield each process's rows as one block, whatever memory that takes.
        """
        if self._group is None:
            yield 0, rows
            return
        row_bytes = max(1, rows.element_size() * math.prod(rows.shape[1:]))
        size = self.largest if whole else max(1, BLOCK_BYTES // row_bytes)
        start = 0
        for owner, count in enumerate(self._counts):
            for offset in range(0, count, size):
                length = min(size, count - offset)
                if owner == self.rank:
                    block = rows[offset : offset + length].contiguous()
                else:
                    block = rows.new_empty((length, *rows.shape[1:]))
                self._exchange(None)  # no process waits in a broadcast for one without memory
                yield start + offset, self._broadcast(block, owner)
            start += count

    def gather(self, rows: Tensor) -> Tensor:
        """Concatenate the (n, ...) CPU rows of all processes, on each of them."""
        if self._group is None:
            return rows
        counts = self._exchange(len(rows))
        gathered = rows.new_empty((sum(counts), *rows.shape[1:]))
        gathered.split(counts)[self.rank].copy_(rows)
        self._exchange(None)  # no process waits in a broadcast for one without memory
        for owner, part in enumerate(gathered.split(counts)):
            self._broadcast(part, owner)
        return gathered

    def gather_sparse(self, rows: sparse.csr_matrix) -> sparse.csr_matrix:
        """Stack the (n, m) sparse rows of all processes, on each of them."""
        if self._group is None:
            return rows
        # The same types on every rank; scipy's depend on the number of entries.
        lengths = np.diff(rows.indptr).astype(np.int64)
        parts = lengths, rows.indices.astype(np.int32), rows.data
        lengths, indices, data = (self.gather(torch.from_numpy(part)).numpy() for part in parts)
        indptr = np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)])
        return sparse.csr_matrix((data, indices, indptr), (len(lengths), rows.shape[1]))

    def sum(self, values: Tensor) -> Tensor:
        """Add a CPU tensor of equal shape over all processes, in place."""
        if self._group is not None:
            self._exchange(None)
            dist.all_reduce(values, group=self._group)
            self.received += values.nbytes
        return values

    def __enter__(self) -> Share:
        return self

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        # The last exchange, so that an error after all others still reaches every process. After
        # an interrupt there is none: the process ends, and with it the others' connection.
        if not self._failed.is_set() and (error is None or isinstance(error, Exception)):
            self._exchange(None, error)

    def _exchange(self, value: Any, error: BaseException | None = None) -> list[Any]:
        """Tell all processes a small value, or why this one cannot go on.

        Raises:
            ValueError: Another process had a ValueError.
            RuntimeError: Another process had any other error.
        """
        if self._group is None:
            return [value]
        said: list[Any] = [None] * dist.get_world_size(self._group)
        complaint = None
        if error is not None:
            complaint = (isinstance(error, ValueError), f"{type(error).__name__}: {error}")
        dist.all_gather_object(said, (value, complaint), group=self._group)
        for rank, (_, other) in enumerate(said):
            if other is not None and error is None:
                self._failed.set()
                raise (ValueError if other[0] else RuntimeError)(
                    f"rank {rank} stopped with {other[1]}"
                )
        return [value for value, _ in said]

    def _broadcast(self, block: Tensor, owner: int) -> Tensor:
        if block.numel() and self._group is not None:
            dist.broadcast(block, dist.get_global_rank(self._group, owner), group=self._group)
        if owner != self.rank:
            self.received += block.nbytes
        return block
