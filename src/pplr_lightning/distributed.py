"""What training, norms and callbacks need of torch.distributed."""

from __future__ import annotations

import pickle
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, TypeVar, cast

import torch
import torch.distributed as dist
from lightning.pytorch import LightningModule
from torch import Tensor

T = TypeVar("T")


def is_distributed() -> bool:
    """Tells whether there are other processes to talk to."""
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1


def new_waiting_group() -> dist.ProcessGroup | None:
    """Makes a group for work in which ranks wait long for each other; all ranks must call it.

    Clustering can outlast the default group's timeout, which kills the job without a traceback;
    and gloo carries CPU tensors whatever the accelerator.
    """
    if not is_distributed():
        return None
    return cast(dist.ProcessGroup, dist.new_group(backend="gloo", timeout=timedelta(days=2)))


def gather_rows(rows: Tensor, group: dist.ProcessGroup | None = None) -> Tensor | None:
    """Concatenates the (n_rank, ...) CPU tensors of all ranks on rank 0, in the order of ranks.

    Returns:
        The (N, ...) tensor on rank 0, None on the others.
    """
    if not is_distributed():
        return rows
    counts: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(counts, len(rows), group=group)
    # Point to point rather than a collective: gloo's gather wants shares of equal length.
    if dist.get_rank() > 0:
        if len(rows):
            dist.send(rows.contiguous(), dst=0, group=group)
        return None
    gathered = rows.new_empty((sum(counts), *rows.shape[1:]))
    shares = gathered.split(counts)
    shares[0].copy_(rows)
    for rank, share in enumerate(shares[1:], start=1):
        if len(share):
            dist.recv(share, src=rank, group=group)
    return gathered


def all_gather_list(values: list[T]) -> list[T]:
    """Concatenates the lists of all ranks, on every rank."""
    if not is_distributed():
        return values
    gathered: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(gathered, values)
    return [value for part in gathered for value in part]


@contextmanager
def raised_on_all() -> Iterator[None]:
    """Has all ranks raise what one of them raises within, so that none waits for it afterwards.

    All ranks must come to it, and what stands within talks to no other rank.

    Raises:
        Exception: That of the first rank that failed, with the attribute `rank` of this one.
    """
    failed: list[Exception] = []
    try:
        yield
    except Exception as error:
        failed = [_portable(error)]
    if failed := all_gather_list(failed):
        failed[0].rank = dist.get_rank() if is_distributed() else 0  # type: ignore[attr-defined]
        raise failed[0]


def _portable(error: Exception) -> Exception:
    """Gives an error that another process can be told of."""
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:  # whatever the error's class makes of it
        return RuntimeError(f"{type(error).__name__}: {error}") if is_distributed() else error
    return error


def on_all_ranks(holds: Tensor) -> Tensor:
    """Tells whether what a truth value says on each rank holds on all, without waiting for it."""
    if not is_distributed():
        return holds
    number = holds.to(torch.uint8)
    dist.all_reduce(number, op=dist.ReduceOp.MIN)
    return number.bool()


def log_own(module: LightningModule, values: dict[str, float]) -> None:
    """Logs this rank's values for the epoch, without talking to the others.

    For what all ranks know alike, or rank 0 alone has to tell. With Lightning's `sync_dist` rank 0
    would start a collective whenever its progress bar reads the metrics, and the others would not.
    """
    names = "|".join(map(re.escape, values))
    warnings.filterwarnings("ignore", message=rf"It is recommended to use `self.log\('({names})'")
    module.log_dict(values)


def consecutive_group(size: int) -> dist.ProcessGroup | None:
    """Makes groups of `size` consecutive ranks and returns this rank's; all ranks must call it."""
    groups = [
        dist.new_group(list(range(first, first + size)))
        for first in range(0, dist.get_world_size(), size)
    ]
    return cast(dist.ProcessGroup, groups[dist.get_rank() // size])


@torch.no_grad()
def average_(tensors: list[Tensor]) -> None:
    """Replaces each tensor by its mean over all ranks, in one collective."""
    if not is_distributed() or not tensors:
        return
    flat = torch.cat([tensor.flatten() for tensor in tensors])
    dist.all_reduce(flat)
    flat /= dist.get_world_size()
    for tensor, mean in zip(tensors, flat.split([t.numel() for t in tensors]), strict=True):
        tensor.copy_(mean.view_as(tensor))
