from __future__ import annotations

import pytest
import torch

from pplr_lightning.networks.backbone import create_backbone, read_map


@pytest.mark.parametrize(("name", "width"), [("vit_small_pass", 384), ("vit_base_pass", 768)])
def test_tokens_of_parts_stand_behind_the_class_token_and_have_positions(name, width):
    backbone = create_backbone(name, (64, 32)).eval()
    assert backbone.reg_token.shape == (1, 3, width)
    assert backbone.pos_embed.shape == (1, 4 + 8, width)
    images = torch.randn(1, 3, 64, 32)
    feature_map, token = read_map(backbone, images)
    tokens = backbone(images)
    assert torch.equal(token, tokens[:, 0])
    assert torch.equal(feature_map.flatten(2).transpose(1, 2), tokens[:, 4:])
