from __future__ import annotations

import pytest
import torch
import torch.distributed as dist
import torch.nn.functional as nnf

from pplr_lightning.distributed import (
    all_gather_list,
    average_,
    consecutive_group,
    gather_rows,
    new_waiting_group,
)
from pplr_lightning.evaluation.metric import ReIDRetrieval
from pplr_lightning.networks import GroupBatchNorm, average_running_statistics, share_groups

from .processes import launch


def _everything(rank):
    group = new_waiting_group()
    rows = torch.arange(rank * 3, dtype=torch.float).view(rank, 3) + 10 * rank  # 0, 1, 2.. rows
    tensors = [torch.full((2,), float(rank)), torch.full((1, 3), 10.0 * rank)]
    average_(tensors)
    return {
        "gathered": gather_rows(rows, group),
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
        assert result["list"] == [r for r in range(world_size) for _ in range(r)]
        assert torch.equal(result["average"][0], torch.full((2,), mean))
        assert torch.equal(result["average"][1], torch.full((1, 3), 10 * mean))


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


def _shared_norm(rank):
    """Trains on 16 images in groups of 8 and returns everything that depends on statistics."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(16, 3, 4, generator=generator, dtype=torch.float64)
    target = torch.randn(16, 3, 4, generator=generator, dtype=torch.float64)
    norm = GroupBatchNorm(3, group_size=8).double()
    norm.weight.data = torch.tensor([0.5, 1.0, 2.0], dtype=torch.float64)
    norm.bias.data = torch.tensor([0.1, -0.1, 1.0], dtype=torch.float64)
    world, own = 1, slice(None)
    if dist.is_initialized():
        world = dist.get_world_size()
        own = slice(rank * 16 // world, (rank + 1) * 16 // world)
        share_groups(norm, consecutive_group(8 * world // 16))
    share = images[own].clone().requires_grad_()
    output = norm(share)
    (output * target[own]).square().sum().backward()
    average_running_statistics(norm)
    gradients = [norm.weight.grad, norm.bias.grad]
    average_(gradients)
    gradients = [world * gradient for gradient in gradients]
    return output.detach(), share.grad, [norm.running_mean, norm.running_var, *gradients]


@pytest.mark.parametrize("world_size", [4, 8])
def test_ranks_share_the_statistics_of_a_group_that_spans_them(world_size, tmp_path):
    output, gradient, rest = _shared_norm(0)
    results = launch(_shared_norm, world_size, tmp_path)
    assert torch.allclose(torch.cat([result[0] for result in results]), output, atol=1e-12)
    assert torch.allclose(torch.cat([result[1] for result in results]), gradient, atol=1e-12)
    for result in results:
        assert all(torch.allclose(a, b, atol=1e-12) for a, b in zip(result[2], rest, strict=True))


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
