from __future__ import annotations

import pytest
import timm
import torch
from torch import nn

from pplr_lightning.networks.batch_norm import (
    GroupBatchNorm,
    group_batch_norms,
    normalise_at_once,
    normalise_one_by_one,
)


@pytest.mark.parametrize("groups", [1, 3])
@pytest.mark.parametrize("shape", [(12, 5), (12, 5, 4, 3), (12, 1, 4, 3), (12, 5, 1, 1)])
@pytest.mark.parametrize("channels_last", [False, True])
def test_groups_at_once_equal_one_after_the_other(shape, groups, channels_last):
    """To 1e-12 in float64: outputs, statistics and all gradients; the layout stays."""
    images = torch.randn(shape, dtype=torch.float64)
    if channels_last and len(shape) == 4:
        images = images.to(memory_format=torch.channels_last)
    weight, bias = torch.rand(2, shape[1], dtype=torch.float64)
    inputs = [images, weight, bias]
    for tensor in inputs:
        tensor.requires_grad_()
    results = []
    for normalise in (normalise_one_by_one, normalise_at_once):
        output, *statistics = normalise(images, weight, bias, groups, eps=1e-5)
        if len(shape) == 4:
            layout = torch.channels_last if channels_last else torch.contiguous_format
            assert output.is_contiguous(memory_format=layout)
        gradients = torch.autograd.grad((output * output.sin()).sum(), inputs)
        results.append([output, *statistics, *gradients])
    for one, other in zip(*results, strict=True):
        assert torch.allclose(one, other, rtol=0, atol=1e-12)


@pytest.mark.parametrize("normalise", [normalise_one_by_one, normalise_at_once])
def test_statistics_of_bfloat16_maps_are_float32(normalise):
    """As under autocast. Means in bfloat16 would be off by 1e-1 here."""
    images = (torch.randn(8, 3, 6, 5) + 40).bfloat16()
    output, means, variances = normalise(images, torch.ones(3), torch.zeros(3), 2, eps=1e-5)
    exact = normalise_one_by_one(images.float(), torch.ones(3), torch.zeros(3), 2, eps=1e-5)
    assert output.dtype == torch.bfloat16
    assert means.dtype == variances.dtype == torch.float32
    assert torch.allclose(means, exact[1], atol=1e-4)
    assert torch.allclose(variances, exact[2], rtol=1e-4)
    assert torch.allclose(output.float(), exact[0], atol=2e-2)


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


@pytest.mark.parametrize("group_size", [None, 4])
def test_without_momentum_all_batches_are_averaged(group_size):
    """As torch does, for `torch.optim.swa_utils.update_bn` and Lightning's callback of it."""
    norm = GroupBatchNorm(3, group_size=group_size, momentum=None).train()
    batches = torch.randn(5, 8, 3, 4, 4) * 2 + 1
    for batch in batches:
        norm(batch)
    groups = batches.reshape(-1, group_size or 8, 3, 4, 4)
    torch.testing.assert_close(norm.running_mean, groups.mean((1, 3, 4)).mean(0))
    torch.testing.assert_close(norm.running_var, groups.var((1, 3, 4)).mean(0))
    plain = torch.nn.Sequential(torch.nn.BatchNorm2d(3, momentum=None))
    group_batch_norms(plain, group_size)
    assert plain[0].momentum is None
