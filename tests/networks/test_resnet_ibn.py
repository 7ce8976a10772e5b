from __future__ import annotations

import timm
import torch

from pplr_lightning.networks.backbone import create_backbone
from pplr_lightning.networks.instance_batch_norm import InstanceBatchNorm


def test_the_first_norm_of_each_block_but_of_the_last_stage():
    mixed = {
        name
        for name, module in create_backbone("resnet50_ibn_a", (64, 32)).named_modules()
        if isinstance(module, InstanceBatchNorm)
    }
    blocks = {1: 3, 2: 4, 3: 6}
    assert mixed == {f"layer{s}.{b}.bn1" for s, count in blocks.items() for b in range(count)}


def test_with_plain_norms_it_is_the_resnet():
    torch.manual_seed(0)
    ours = create_backbone("resnet50_ibn_a", (64, 32)).eval()
    plain = timm.create_model("resnet50", num_classes=0, global_pool="").eval()
    for name, module in list(ours.named_modules()):
        if isinstance(module, InstanceBatchNorm):
            ours.get_submodule(name.removesuffix(".bn1")).bn1 = plain.get_submodule(name)
    ours.load_state_dict(plain.state_dict())
    images = torch.randn(1, 3, 64, 32)
    assert torch.equal(ours(images), plain(images))
