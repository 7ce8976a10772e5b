"""Work on several real processes over gloo."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import torch
import torch.distributed as dist
import torch.multiprocessing as mp


def launch(work, world_size, folder: Path, timeout: float = 30.0) -> list:
    """Runs `work(rank)` on ranks over gloo and returns what each returned or raised."""
    # Forked, for starting anew imports everything again; safe with one thread in each child.
    arguments = (work, world_size, str(folder), timeout)
    mp.start_processes(_run, args=arguments, nprocs=world_size, start_method="fork")
    return [torch.load(folder / f"{rank}.pt", weights_only=False) for rank in range(world_size)]


def _run(rank, work, world_size, folder, timeout):
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo",
        init_method=f"file://{folder}/store",
        rank=rank,
        world_size=world_size,
        timeout=timedelta(seconds=timeout),
    )
    try:
        result = work(rank)
    except Exception as error:
        result = f"{type(error).__name__}: {error}"
    torch.save(result, f"{folder}/{rank}.pt")
    dist.barrier()
    dist.destroy_process_group()
