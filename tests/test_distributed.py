from __future__ import annotations

import time
from datetime import timedelta
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
import torch.nn.functional as nnf

from pplr_lightning.distributed import (
    all_gather_list,
    average_,
    gather_rows,
    new_patient_group,
    on_rank_zero,
)
from pplr_lightning.metrics import ReIDRetrieval
from pplr_lightning.models import GroupBatchNorm, average_running_statistics


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


def _everything(rank):
    group = new_patient_group()
    rows = torch.arange(rank * 3, dtype=torch.float).view(rank, 3) + 10 * rank  # 0, 1, 2.. rows
    tensors = [torch.full((2,), float(rank)), torch.full((1, 3), 10.0 * rank)]
    average_(tensors)
    return {
        "gathered": gather_rows(rows, group),
        "value": on_rank_zero(lambda: ("from", dist.get_rank()), group),
        "list": all_gather_list([rank] * rank),
        "average": tensors,
    }


@pytest.mark.parametrize("world_size", [2, 4])
def test_collectives(world_size, tmp_path):
    results = launch(_everything, world_size, tmp_path)
    rows = [torch.arange(r * 3.0).view(r, 3) + 10 * r for r in range(world_size)]
    assert torch.equal(results[0]["gathered"], torch.cat(rows))
    mean = sum(range(world_size)) / world_size
    for rank, result in enumerate(results):
        assert rank == 0 or result["gathered"] is None
        assert result["value"] == ("from", 0)
        assert result["list"] == [r for r in range(world_size) for _ in range(r)]
        assert torch.equal(result["average"][0], torch.full((2,), mean))
        assert torch.equal(result["average"][1], torch.full((1, 3), 10 * mean))


def _fail(rank):
    def work():
        raise ValueError("lower eps")

    return on_rank_zero(work, new_patient_group())


def test_an_error_on_rank_zero_ends_every_rank(tmp_path):
    results = launch(_fail, 2, tmp_path)
    assert results == [
        "ValueError: lower eps",
        "ValueError: rank 0 stopped with ValueError: lower eps",
    ]


def _outlast(rank):
    return on_rank_zero(lambda: time.sleep(6) or "done", new_patient_group())


def test_work_may_outlast_the_timeout_of_the_process_group(tmp_path):
    assert launch(_outlast, 2, tmp_path, timeout=3.0) == ["done", "done"]


def _impatient(rank):
    return on_rank_zero(lambda: time.sleep(6) or "done")


def test_the_default_group_would_not_wait(tmp_path):
    with pytest.raises(Exception, match=r"(?i)process"):
        launch(_impatient, 2, tmp_path, timeout=3.0)


def _norm(rank):
    images = torch.randn(16, 3, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    norm = GroupBatchNorm(3, group_size=4).double()
    share = 16 // dist.get_world_size() if dist.is_initialized() else 16
    for step in range(3):
        norm((step + 1) * images[rank * share : (rank + 1) * share])
        average_running_statistics(norm)
    return norm.running_mean, norm.running_var


@pytest.mark.parametrize("world_size", [2, 4])
def test_running_statistics_do_not_depend_on_the_number_of_ranks(world_size, tmp_path):
    expected = _norm(0)
    for result in launch(_norm, world_size, tmp_path):
        assert all(torch.allclose(a, b, atol=1e-12) for a, b in zip(result, expected, strict=True))


def _metric(rank):
    generator = torch.Generator().manual_seed(0)
    persons = torch.randint(0, 4, (41,), generator=generator)
    features = nnf.normalize(torch.randn(41, 8, generator=generator), dim=1)
    images = (features, persons, torch.arange(41) % 3, torch.arange(41) < 9, torch.arange(41))
    metric = ReIDRetrieval()
    world = dist.get_world_size() if dist.is_initialized() else 1
    order = torch.arange(42) % 41  # padded by one, and dealt out in turn
    metric.update(*(value[order[rank::world]] for value in images))
    return metric.compute()


@pytest.mark.parametrize("world_size", [2, 3])
def test_retrieval_does_not_depend_on_the_number_of_ranks(world_size, tmp_path):
    expected = _metric(0)
    assert launch(_metric, world_size, tmp_path) == [expected] * world_size
