from __future__ import annotations

import pytest
import timm
import torch

from pplr_lightning.networks.backbone import create_backbone, read_map
from pplr_lightning.networks.vit_ics import ConvStemEmbed


def test_tokens_are_the_patches_of_the_stem():
    torch.manual_seed(0)
    embed = ConvStemEmbed(img_size=(64, 32), embed_dim=12).eval()
    assert embed.grid_size == (4, 2)
    images = torch.randn(2, 3, 64, 32)
    stem = embed.conv(images)
    assert stem.shape == (2, 64, 32, 16)
    patch = stem[1, :, 8:16, 8:16]  # second row, second column
    expected = (embed.proj.weight * patch).sum((1, 2, 3)) + embed.proj.bias
    assert torch.allclose(embed(images)[1, 3], expected, atol=1e-5)


@pytest.mark.parametrize(("name", "width"), [("vit_small_ics", 384), ("vit_base_ics", 768)])
def test_behind_the_stem_it_is_the_vit(name, width):
    torch.manual_seed(0)
    ours = create_backbone(name, (64, 32)).eval()
    size = name.split("_")[1]
    vit = timm.create_model(
        f"vit_{size}_patch16_224", img_size=(64, 32), num_classes=0, global_pool=""
    ).eval()
    vit.patch_embed = ours.patch_embed
    vit.load_state_dict(ours.state_dict())
    images = torch.randn(1, 3, 64, 32)
    assert torch.equal(ours(images), vit(images))
    feature_map, token = read_map(ours, images)
    assert feature_map.shape == (1, width, 4, 2)
    assert token.shape == (1, width)


def test_names_are_those_of_transreid_ssl():
    names = set(create_backbone("vit_small_ics", (64, 32)).state_dict())
    assert {
        "patch_embed.conv.0.weight",
        "patch_embed.conv.1.IN.weight",
        "patch_embed.conv.4.BN.running_mean",
        "patch_embed.conv.7.running_var",
        "patch_embed.proj.weight",
        "blocks.11.mlp.fc2.bias",
    } <= names
