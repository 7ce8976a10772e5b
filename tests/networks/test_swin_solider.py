from __future__ import annotations

import pytest
import torch
from timm.models.swin_transformer import SwinTransformer

from pplr_lightning.networks.backbone import create_backbone
from pplr_lightning.networks.swin_solider import SwinSOLIDER

SMALL = {"embed_dim": 8, "depths": (2, 2), "num_heads": (2, 4), "num_classes": 0, "global_pool": ""}


def pair(image_size, **options):
    torch.manual_seed(0)
    ours = SwinSOLIDER(img_size=image_size, **{**SMALL, **options}).eval()
    for name, parameter in ours.named_parameters():
        if not name.endswith("reduction.bias"):  # which timm does not have
            torch.nn.init.normal_(parameter, std=0.5)
    timms = SwinTransformer(img_size=image_size, **{**SMALL, **options}).eval()
    weights = {n: w for n, w in ours.state_dict().items() if not n.endswith("reduction.bias")}
    timms.load_state_dict(weights)
    return ours, timms


def test_where_the_windows_fill_the_map_it_is_the_swin():
    ours, timms = pair((64, 32), window_size=4)
    images = torch.randn(1, 3, 64, 32)
    assert torch.allclose(ours(images), timms(images), rtol=1e-4, atol=1e-5)


def test_shifted_windows_of_a_map_that_they_do_not_fill():
    """Each place's attention is that of the plain masked attention over the filled map."""
    ours, timms = pair((36, 36), window_size=4)  # of 9 x 9 places
    block, plain = ours.layers[0].blocks[1], timms.layers[0].blocks[1]
    places = torch.randn(1, 9, 9, 8)
    filled = torch.nn.functional.pad(places, (0, 0, 0, 3, 0, 3))
    assert torch.equal(block._attn(places), plain._attn(filled)[:, :9, :9])
    assert not torch.allclose(block._attn(places), plain._attn(places), atol=1e-3)


@pytest.mark.parametrize(("size", "width"), [("tiny", 768), ("base", 1024)])
def test_stages_begin_with_an_affine_map(size, width):
    backbone = create_backbone(f"swin_{size}_solider", (64, 32))
    assert backbone.num_features == width
    biases = [stage.downsample.reduction.bias for stage in backbone.layers[1:]]
    assert [len(bias) for bias in biases] == [width // 4, width // 2, width]
    assert not any(bias.any() for bias in biases)
