"""ResNets with instance normalisation in their first stages, which timm does not have."""

from __future__ import annotations

from typing import Any

from timm.models.resnet import Bottleneck, ResNet

from pplr_lightning.networks.instance_batch_norm import InstanceBatchNorm
from pplr_lightning.networks.registration import register


class ResNetIBN(ResNet):  # type: ignore[misc]  # timm has no types
    """IBN-a (Pan et al., ECCV 2018): the blocks of stages 1 to 3 begin with a norm half instance.

    Weights by IBN-Net's names, `layer1.0.bn1.IN.weight`; so have fast-reid and TransReID.

    Args:
        **options: Of timm's `ResNet`.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        for stage in (self.layer1, self.layer2, self.layer3):
            for block in stage:
                block.bn1 = InstanceBatchNorm(block.bn1.num_features)


for _name, _layers in {"resnet50_ibn_a": [3, 4, 6, 3], "resnet101_ibn_a": [3, 4, 23, 3]}.items():
    _ends = {"first_conv": "conv1", "classifier": "fc"}
    register(ResNetIBN, _name, _ends, block=Bottleneck, layers=_layers)
