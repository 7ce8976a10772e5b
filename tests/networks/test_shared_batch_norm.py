from __future__ import annotations

import pytest

from pplr_lightning.networks.shared_batch_norm import ranks_per_group


@pytest.mark.parametrize(
    ("batch", "group", "processes", "ranks"),
    [
        (64, 16, 1, 1),
        (64, 16, 4, 1),
        (64, 16, 8, 2),
        (32, 16, 4, 2),
        (32, 32, 8, 8),
        (64, None, 8, 1),
    ],
)
def test_processes_that_hold_a_group_together(batch, group, processes, ranks):
    assert ranks_per_group(batch, group, processes) == ranks


@pytest.mark.parametrize(
    ("batch", "group", "processes", "allowed"),
    [
        (24, 16, 1, "2, 3, 4, 6, 8, 12, 24"),
        (64, 48, 8, "2, 4, 8, 16, 32, 64"),
        (48, 32, 6, "2, 4, 8, 16, 24, 48"),
    ],
)
def test_groups_that_do_not_divide(batch, group, processes, allowed):
    with pytest.raises(ValueError, match=rf"use a norm_batch_size of {allowed}, or another"):
        ranks_per_group(batch, group, processes)
