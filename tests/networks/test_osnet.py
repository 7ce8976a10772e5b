from __future__ import annotations

import pytest
import torch

from pplr_lightning.networks.backbone import create_backbone
from pplr_lightning.networks.osnet import OSBlock, OSNet

# parameters without embedding layer and classifier, as torchreid's models have them
PARAMETERS = {
    "osnet_x1_0": 1_905_828,
    "osnet_x0_75": 1_087_610,
    "osnet_x0_5": 497_426,
    "osnet_x0_25": 134_792,
    "osnet_ibn_x1_0": 1_906_852,
}


@pytest.mark.parametrize("name", PARAMETERS)
def test_number_of_parameters(name):
    backbone = create_backbone(name, (256, 128))
    assert sum(parameter.numel() for parameter in backbone.parameters()) == PARAMETERS[name]


def test_names_are_those_of_torchreid():
    names = set(create_backbone("osnet_x0_25", (64, 32)).state_dict())
    assert names >= {
        "conv1.conv.weight",
        "conv1.bn.running_var",
        "conv2.0.conv1.conv.weight",
        "conv2.0.conv2a.conv2.weight",
        "conv2.0.conv2d.3.bn.bias",
        "conv2.0.gate.fc2.bias",
        "conv2.0.conv3.bn.weight",
        "conv2.0.downsample.conv.weight",
        "conv2.2.0.conv.weight",
        "conv4.1.conv2b.1.conv1.weight",
        "conv5.bn.weight",
    }
    assert "IN.weight" not in "".join(names)
    ibn = set(create_backbone("osnet_ibn_x1_0", (64, 32)).state_dict())
    assert {"conv1.bn.weight", "conv2.1.IN.bias"} <= ibn
    assert not {"conv1.bn.running_mean", "conv3.0.IN.bias"} & ibn


def test_a_block_is_the_gated_sum_of_four_scales():
    torch.manual_seed(0)
    block = OSBlock(64, 64).eval()
    images = torch.randn(1, 64, 15, 15)
    narrow = block.conv1(images)
    streams = [getattr(block, f"conv2{letter}")(narrow) for letter in "abcd"]
    summed = sum(
        s * torch.sigmoid(block.gate.fc2(block.gate.fc1(s.mean((2, 3), keepdim=True)).relu()))
        for s in streams
    )
    assert torch.allclose(block(images), (block.conv3(summed) + images).relu(), atol=1e-6)


def test_it_gives_its_map_alone():
    with pytest.raises(ValueError, match="OSNet gives its map alone"):
        OSNet((16, 64, 96, 128), num_classes=10)
