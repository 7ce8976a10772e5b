"""What the label stage needs of torch.distributed; every function also works in one process."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any, TypeVar, cast

import torch
import torch.distributed as dist
from torch import Tensor

T = TypeVar("T")


def is_distributed() -> bool:
    """Tells whether there are other processes to talk to."""
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1


def new_patient_group() -> dist.ProcessGroup | None:
    """Makes a group for work that one rank does while the others wait; all ranks must call it.

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


def on_rank_zero(function: Callable[[], T], group: dist.ProcessGroup | None = None) -> T:
    """Calls `function` on rank 0 and returns its value on every rank.

    Raises:
        ValueError: On every rank, when the call raised one on rank 0.
        RuntimeError: On the other ranks, when the call raised anything else; rank 0 raises the
            error itself. So all ranks end together instead of waiting for each other.
    """
    if not is_distributed():
        return function()
    message: list[Any] = [None, None]
    error: Exception | None = None
    if dist.get_rank() == 0:
        try:
            message[1] = function()
        except Exception as caught:
            error = caught
            message[0] = (isinstance(caught, ValueError), f"{type(caught).__name__}: {caught}")
    dist.broadcast_object_list(message, src=0, group=group)
    if error is not None:
        raise error
    if message[0] is not None:
        is_complaint, text = message[0]
        raise (ValueError if is_complaint else RuntimeError)(f"rank 0 stopped with {text}")
    return message[1]


def all_gather_list(values: list[T]) -> list[T]:
    """Concatenates the lists of all ranks, on every rank."""
    if not is_distributed():
        return values
    gathered: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(gathered, values)
    return [value for part in gathered for value in part]


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
