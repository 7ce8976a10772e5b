from __future__ import annotations

import pytest
import torch
import torch.nn.functional as nnf

from pplr_lightning.networks.batch_norm import GroupBatchNorm, group_batch_norms
from pplr_lightning.networks.instance_batch_norm import InstanceBatchNorm


@pytest.mark.parametrize("channels", [6, 7])
def test_half_of_the_channels_by_image_and_the_rest_by_batch(channels):
    norm = InstanceBatchNorm(channels)
    maps = torch.randn(4, channels, 5, 3) * 2 + 1
    by_image = nnf.instance_norm(maps)[:, :3]
    by_batch = nnf.batch_norm(maps, None, None, training=True)[:, 3:]
    assert torch.allclose(norm(maps), torch.cat([by_image, by_batch], dim=1), atol=1e-6)


def test_its_batch_half_is_grouped_and_its_other_half_is_not():
    norm = InstanceBatchNorm(4)
    group_batch_norms(norm, 2)
    assert isinstance(norm.BN, GroupBatchNorm)
    maps = torch.randn(4, 4, 5, 3)
    whole = norm(maps)
    assert torch.allclose(whole[2:], norm(maps[2:]), atol=1e-6)


def test_names_are_those_of_ibn_net():
    assert list(InstanceBatchNorm(4).state_dict()) == [
        "IN.weight",
        "IN.bias",
        "BN.weight",
        "BN.bias",
        "BN.running_mean",
        "BN.running_var",
        "BN.num_batches_tracked",
    ]
