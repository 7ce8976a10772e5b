from __future__ import annotations

import time

import numpy as np
import pytest
import torch
import torch.distributed as dist
from scipy import sparse

from pplr_lightning.distributed import new_waiting_group
from pplr_lightning.functional import neighbors, sharding
from pplr_lightning.functional.sharding import Share

from ..processes import launch


def test_alone_it_holds_all_rows():
    rows = torch.arange(6.0).view(3, 2)
    with Share(3) as share:
        assert (share.start, share.stop, share.total, share.received) == (0, 3, 3, 0)
        assert share.gather(rows) is rows
        assert share.sum(rows) is rows
        ((start, block),) = share.blocks(rows)
        assert start == 0
        assert block is rows


def _exchange(rank):
    count = (3, 0, 5, 1)[rank]
    sharding.BLOCK_BYTES = 20  # two rows of 8 bytes
    rows = 10.0 * rank + torch.arange(2.0 * count).view(count, 2)
    dense = np.arange(count * 4).reshape(count, 4) % 3
    with Share(count, new_waiting_group()) as share:
        return {
            "range": (share.start, share.stop, share.total),
            "blocks": [(start, block.clone()) for start, block in share.blocks(rows)],
            "gathered": share.gather(rows),
            "sparse": share.gather_sparse(sparse.csr_matrix(dense)).toarray(),
            "sum": share.sum(torch.full((2,), float(rank))),
            "received": share.received > 0,
        }


def _divide(rank, broken=4):
    with Share((3, 0, 5, 1)[rank], new_waiting_group()) as share:
        others = share.divide(6)
        if rank == broken:
            raise ValueError("broken")
        rows = torch.arange(6.0)[others.start : others.stop]
        return others.rows, others.largest, others.gather(rows).tolist(), share.total


def _divide_broken(rank):
    return _divide(rank, broken=2)


def test_divides_other_rows_among_the_same_processes(tmp_path):
    assert Share(5).divide(3).rows == range(3)
    results = launch(_divide, 4, tmp_path)
    assert [result[0] for result in results] == [range(1), range(1, 3), range(3, 4), range(4, 6)]
    assert [result[1:] for result in results] == [(2, [0, 1, 2, 3, 4, 5], 9)] * 4


def test_an_error_is_told_once_whichever_rows_the_others_exchange(tmp_path):
    told = "ValueError: rank 2 stopped with ValueError: broken"
    assert launch(_divide_broken, 4, tmp_path) == [told, told, "ValueError: broken", told]


def test_exchanges_rows_in_the_order_of_ranks(tmp_path):
    counts = (3, 0, 5, 1)
    results = launch(_exchange, 4, tmp_path)
    rows = torch.cat([10.0 * r + torch.arange(2.0 * n).view(n, 2) for r, n in enumerate(counts)])
    dense = np.concatenate([np.arange(n * 4).reshape(n, 4) % 3 for n in counts])
    for rank, result in enumerate(results):
        start = sum(counts[:rank])
        assert result["range"] == (start, start + counts[rank], 9)
        assert [first for first, _ in result["blocks"]] == [0, 2, 3, 5, 7, 8]
        assert torch.equal(torch.cat([block for _, block in result["blocks"]]), rows)
        assert torch.equal(result["gathered"], rows)
        assert np.array_equal(result["sparse"], dense)
        assert result["sum"].tolist() == [6, 6]
        assert result["received"]


def _fail(rank):
    with Share(2, new_waiting_group()) as share:
        share.gather(torch.ones(2))
        if rank == 1:
            raise KeyError("lost")
        if rank == 2:
            raise ValueError("lower eps")
        for _ in share.blocks(torch.ones(2, 3)):
            pass


@pytest.mark.parametrize("world_size", [2, 3])
def test_an_error_of_one_ends_all(world_size, tmp_path):
    results = launch(_fail, world_size, tmp_path)
    assert results[0] == "RuntimeError: rank 1 stopped with KeyError: 'lost'"
    assert results[1:] == ["KeyError: 'lost'", "ValueError: lower eps"][: world_size - 1]


def _no_memory(rank):
    if rank == 1:
        torch.Tensor.new_empty = lambda *_, **__: (_ for _ in ()).throw(MemoryError("full"))
    with Share(2, new_waiting_group()) as share:
        share.gather(torch.ones(2))


def test_a_failed_allocation_ends_all(tmp_path):
    own = "MemoryError: full"
    assert launch(_no_memory, 2, tmp_path) == [f"RuntimeError: rank 1 stopped with {own}", own]


def _recall(rank):
    count = (1001, 0, 1000, 999)[rank]
    features = torch.nn.functional.normalize(
        torch.randn(3000, 8, generator=torch.Generator().manual_seed(0)), dim=1
    )
    with Share(count, new_waiting_group()) as share:
        own = features[share.start : share.stop]
        return neighbors.recall(own, neighbors.search(own, 5, share), share)


def test_recall_is_measured_over_all_ranks(tmp_path):
    assert launch(_recall, 4, tmp_path) == [1.0] * 4


def _fail_last(rank):
    with Share(2, new_waiting_group()):
        if rank == 1:
            raise ValueError("too late for any exchange but the last")


def test_an_error_after_the_last_exchange_ends_all(tmp_path):
    own = "ValueError: too late for any exchange but the last"
    assert launch(_fail_last, 2, tmp_path) == [f"ValueError: rank 1 stopped with {own}", own]


def _outlast(rank):
    with Share(1, new_waiting_group()) as share:
        if rank == 0:
            time.sleep(3)
        return share.gather(torch.tensor([rank])).tolist()


def test_work_may_outlast_the_timeout_of_the_process_group(tmp_path):
    assert launch(_outlast, 2, tmp_path, timeout=1.0) == [[0, 1], [0, 1]]


def _impatient(rank):
    with Share(1, dist.group.WORLD) as share:
        if rank == 0:
            time.sleep(3)
        return share.gather(torch.tensor([rank])).tolist()


def test_the_default_group_would_not_wait(tmp_path):
    with pytest.raises(Exception, match=r"(?i)timed? ?out|process \d+ terminated"):
        launch(_impatient, 2, tmp_path, timeout=1.0)
