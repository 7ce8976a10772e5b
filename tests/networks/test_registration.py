"""Backbones that timm does not have work wherever one of timm's does."""

from __future__ import annotations

import pytest
import timm
import torch

from pplr_lightning import PPLRModule
from pplr_lightning.networks import PartNetwork

from .. import tiny

OURS = ["osnet_x0_25", "osnet_ibn_x1_0", "resnet50_ibn_a", "vit_small_ics", "swin_tiny_solider"]
SIZE = (96, 48)


def make(name, **options):
    torch.manual_seed(0)
    stride = 1 if name.startswith("resnet") else 2
    given = {"weights": None, "norm_batch_size": 2, "last_stride": stride, "image_size": SIZE}
    return PartNetwork(name, **{**given, **options})


@pytest.mark.parametrize("name", OURS)
def test_every_parameter_learns(name):
    network = make(name)
    output = network(torch.randn(4, 3, *SIZE))
    assert output.part_features.shape == (4, network.num_features, 3)
    sum(values.square().mean() for values in output).backward()
    for parameter_name, parameter in network.named_parameters():
        assert (parameter.grad is not None) == parameter.requires_grad, parameter_name


@pytest.mark.parametrize("name", OURS)
def test_groups_of_batch_statistics_are_all_that_ties_images(name):
    network = make(name).double().train()
    images = torch.randn(4, 3, *SIZE, dtype=torch.float64)
    whole, share = network(images), network(images[2:])
    assert torch.allclose(whole.features[2:], share.features)


def test_timm_knows_them_and_has_no_weights():
    assert {"osnet_x1_0", "resnet101_ibn_a", "vit_base_ics"} <= set(timm.list_models())
    with pytest.raises(ValueError, match=r"osnet_x0_25 cannot be loaded .*set network.weights to"):
        make("osnet_x0_25", weights="pretrained").load_weights()


def test_last_stride_of_a_network_that_has_none():
    with pytest.raises(ValueError, match=r"'osnet_x0_25' has no strided last .* last_stride to 2"):
        make("osnet_x0_25", last_stride=1)


@pytest.mark.parametrize("name", ["osnet_x0_25", "vit_small_ics"])
def test_shared_and_checkpointed_they_are_built_again(name, tmp_path):
    module = PPLRModule(make(name, num_parts=2), max_clusters=4).eval()
    images = torch.randn(2, 3, *SIZE)
    expected = module(images)
    module.save_pretrained(tmp_path / "hub")
    checkpoint = tiny.save(module, tmp_path / "last.ckpt")
    for again in (
        PPLRModule.from_pretrained(tmp_path / "hub"),
        PPLRModule.load_from_checkpoint(checkpoint),
    ):
        assert torch.equal(again.eval()(images), expected)
