from __future__ import annotations

import pytest
import timm
import torch
from torch import nn

from pplr_lightning.models.norm import GroupBatchNorm, group_batch_norms


@pytest.mark.parametrize("shape", [(12, 5), (12, 5, 4, 3)])
def test_groups_equal_batch_norms_of_their_own(shape):
    images = torch.randn(shape, dtype=torch.float64, requires_grad=True)
    norm = GroupBatchNorm(5, group_size=4).double()
    norm.weight.data.uniform_()
    norm.bias.data.uniform_()
    plain = (nn.BatchNorm1d if len(shape) == 2 else nn.BatchNorm2d)(5).double()
    plain.load_state_dict(norm.state_dict())
    output = norm(images)
    expected = torch.cat([plain(group) for group in images.split(4)])
    assert torch.allclose(output, expected, atol=1e-12)
    target = torch.randn_like(output)
    gradients = [torch.autograd.grad((o * target).sum(), images)[0] for o in (output, expected)]
    assert torch.allclose(*gradients, atol=1e-12)


def test_running_statistics_take_one_step_towards_the_mean_over_groups():
    images = torch.randn(8, 3, 4, 4, dtype=torch.float64)
    norm = GroupBatchNorm(3, group_size=4, momentum=0.1).double()
    norm(images)
    groups = images.unflatten(0, (2, 4)).transpose(1, 2).flatten(2)  # (2, 3, 4 * 16)
    assert torch.allclose(norm.running_mean, 0.1 * groups.mean(2).mean(0))
    assert torch.allclose(norm.running_var, 0.9 + 0.1 * groups.var(2).mean(0))
    assert norm.num_batches_tracked == 1


def test_one_group_is_ordinary_batch_norm():
    images = torch.randn(6, 3, 4, 4)
    norm, plain = GroupBatchNorm(3), nn.BatchNorm2d(3)
    assert torch.allclose(norm(images), plain(images), atol=1e-6)
    assert torch.allclose(norm.running_var, plain.running_var)
    norm.eval(), plain.eval()
    assert torch.allclose(norm(images), plain(images), atol=1e-6)


def test_batch_that_does_not_divide():
    with pytest.raises(ValueError, match=r"batch of 10 images .* norm_batch_size=4"):
        GroupBatchNorm(3, group_size=4)(torch.randn(10, 3))


@pytest.mark.parametrize("backbone", ["resnet10t", "mobilenetv3_small_050"])
def test_conversion_keeps_a_network_as_it_was(backbone):
    torch.manual_seed(0)
    network = timm.create_model(backbone, num_classes=0)
    images = torch.randn(4, 3, 64, 32)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_var.uniform_(0.5, 2)
    expected = network.eval()(images), {name for name, _ in network.named_parameters()}
    group_batch_norms(network, 2)
    network.eval()
    assert torch.allclose(network(images), expected[0], atol=1e-5)
    assert {name for name, _ in network.named_parameters()} == expected[1]
    norms = [m for m in network.modules() if isinstance(m, nn.BatchNorm2d)]
    assert norms
    assert all(isinstance(norm, GroupBatchNorm) and norm.group_size == 2 for norm in norms)
