from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from pplr_lightning.methods import IICSModule
from pplr_lightning.networks import AdaptiveNetwork, GroupBatchNorm, PartNetwork
from pplr_lightning.networks.adaptive_network import AdaptiveNorm

from ..tiny import save

REFERENCE = Path(__file__).parents[1] / "reference"


@pytest.fixture(scope="module")
def arrays():
    with np.load(REFERENCE / "iics_aibn.npz") as file:
        return {name: torch.from_numpy(np.asarray(file[name])) for name in file.files}


def build(alpha: float, weight, bias, *, group=None, dtype=torch.float64):
    plain = GroupBatchNorm(len(weight), group_size=group).to(dtype)
    with torch.no_grad():
        plain.weight.copy_(weight)
        plain.bias.copy_(bias)
        plain.running_var.zero_()
    return AdaptiveNorm(plain, nn.Parameter(torch.tensor([alpha], dtype=dtype))).to(dtype)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-5)])
@pytest.mark.parametrize("case", ["start", "half", "below", "above"])
def test_is_the_authors(arrays, case, dtype, tolerance):
    norm = build(float(arrays[f"adaptive_{case}"]), arrays["weight"], arrays["bias"], dtype=dtype)
    x = arrays["x"].clone().to(dtype).requires_grad_()
    output = norm(x)
    output.backward(arrays["upstream"].to(dtype))
    found = {
        "out_train": output.detach(),
        "grad_x": x.grad,
        "grad_adaptive": norm._alpha[0].grad,
        "grad_weight": norm.weight.grad,
        "grad_bias": norm.bias.grad,
        "running_mean": norm.running_mean,
        "running_var": norm.running_var,
        "out_eval": norm.eval()(x[:1]).detach(),
    }
    for name, value in found.items():
        expected = arrays[f"{name}_{case}"].to(dtype)
        scale = max(float(expected.abs().max()), 1e-12)
        torch.testing.assert_close(value / scale, expected / scale, rtol=0, atol=tolerance)


def test_a_channel_of_one_value_stays_finite(arrays):
    """The variance of the group is a difference of squares."""
    norm = build(0.9, arrays["weight"], arrays["bias"], dtype=torch.float32)
    for value in torch.linspace(100, 1000, 40):
        assert norm(torch.full((7, 3, 4, 2), float(value))).isfinite().all()
    assert (norm.running_var >= 0).all()


def test_groups_are_normalised_apart(arrays):
    x = torch.randn(8, 3, 4, 2, dtype=torch.float64)
    norm = build(0.4, arrays["weight"], arrays["bias"], group=4)
    alone = [build(0.4, arrays["weight"], arrays["bias"]) for _ in range(2)]
    parts = [one(part) for one, part in zip(alone, x.chunk(2), strict=True)]
    torch.testing.assert_close(norm(x), torch.cat(parts))
    means = torch.stack([one.running_mean for one in alone]).mean(0)
    torch.testing.assert_close(norm.running_mean, means)


@pytest.mark.parametrize("backbone", ["resnet10t", "mobilenetv2_100"])
def test_the_backbone_keeps_its_names_and_function(backbone):
    """Weights of the plain one fit; with a mixing weight of 1 it is the plain one."""
    stride = 2 if backbone == "mobilenetv2_100" else 1
    options = {"weights": None, "last_stride": stride, "norm_batch_size": 4}
    plain = PartNetwork(backbone, num_parts=0, **options)
    network = AdaptiveNetwork(backbone, **options)
    network.backbone.load_state_dict(plain.backbone.state_dict())
    kinds = [type(norm) for norm in network.backbone.modules() if isinstance(norm, GroupBatchNorm)]
    assert 0 < kinds.count(AdaptiveNorm) < len(kinds)
    images = torch.randn(4, 3, 128, 64)
    before = network(images).features
    with torch.no_grad():
        for alpha in network.alphas:
            alpha.fill_(1)
    expected = plain.forward_pooled(images)[1]
    # Not one to the bit: the variance is of the images' unbiased ones.
    found, other = (torch.cosine_similarity(one, expected) for one in (network(images)[0], before))
    assert found.min() > 0.99
    assert found.min() > other.max()


def test_every_block_has_a_weight_that_learns_and_copies_go_along():
    network = AdaptiveNetwork("resnet10t", weights=None, norm_batch_size=4)
    copied = copy.deepcopy(network)
    norms = [m for m in copied.modules() if isinstance(m, AdaptiveNorm)]
    assert {id(norm._alpha[0]) for norm in norms} == {id(alpha) for alpha in copied.alphas}
    assert len(copied.alphas) == 2
    network(torch.randn(4, 3, 64, 32)).features.square().sum().backward()
    assert all(one.grad is not None for one in network.parameters())


def test_starts_from_a_checkpoint_of_its_own_kind(tmp_path):
    options = {"image_size": (64, 32), "norm_batch_size": 4}
    trained = AdaptiveNetwork("test_resnet", weights=None, **options)
    trained.alphas[0].data.fill_(0.7)
    file = save(IICSModule(trained, max_clusters=8), tmp_path / "iics.ckpt")
    network = AdaptiveNetwork("test_resnet", weights=str(file), **options)
    network.load_weights()
    for name, tensor in trained.state_dict().items():
        assert torch.equal(network.state_dict()[name], tensor), name


def test_a_mirrored_image_is_the_same_in_evaluation():
    network = AdaptiveNetwork("resnet10t", weights=None).eval()
    images = torch.randn(2, 3, 64, 32)
    torch.testing.assert_close(network(images).features, network(images.flip(3)).features)


def test_a_map_of_one_pixel_is_refused(arrays):
    norm = build(0.1, arrays["weight"], arrays["bias"])
    with pytest.raises(ValueError, match="a map of one pixel has no variance: use larger images"):
        norm(arrays["x"][:, :, :1, :1])


def test_another_family_is_refused():
    with pytest.raises(ValueError, match=r"network.backbone='test_vit': AIBN is of the residual"):
        AdaptiveNetwork("test_vit", weights=None, image_size=(64, 32), last_stride=2)
