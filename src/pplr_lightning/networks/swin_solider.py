"""Swins as SOLIDER computes them, which timm does not."""

from __future__ import annotations

from typing import Any, cast

from timm.models.swin_transformer import SwinTransformer, SwinTransformerBlock
from torch import Tensor, nn
from torch.nn import functional as F

from pplr_lightning.networks.registration import register


class FilledBlock(SwinTransformerBlock):  # type: ignore[misc]  # timm has no types
    """A block that fills its last windows up before it shifts them, where timm shifts first."""

    def _attn(self, x: Tensor) -> Tensor:
        height, width = x.shape[1:3]
        below, right = (-n % int(w) for n, w in zip((height, width), self.window_size, strict=True))
        filled = F.pad(x, (0, 0, 0, right, 0, below))
        return cast(Tensor, super()._attn(filled))[:, :height, :width]


class SwinSOLIDER(SwinTransformer):  # type: ignore[misc]  # timm has no types
    """A Swin whose stages begin with an affine map, where timm's is linear, of `FilledBlock`s.

    SOLIDER (Chen et al., CVPR 2023) scales and shifts the channels between two stages by a weight
    that says how much of the meaning of a place is wanted. For one such weight that is part of the
    map with which a stage begins, so that its embeddings need no layers of their own.

    Args:
        **options: Of timm's `SwinTransformer`.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        for block in (block for stage in self.layers for block in stage.blocks):
            block.__class__ = FilledBlock  # timm's stage takes no class of block
        for stage in self.layers[1:]:
            linear = stage.downsample.reduction
            affine = nn.Linear(linear.in_features, linear.out_features)
            affine.weight = linear.weight
            nn.init.zeros_(affine.bias)
            stage.downsample.reduction = affine


for _size, _width, _depth in (("tiny", 96, 6), ("small", 96, 18), ("base", 128, 18)):
    _published = {
        "mean": (0.5, 0.5, 0.5),
        "std": (0.5, 0.5, 0.5),
        "input_size": (3, 384, 128),
        "fixed_input_size": True,
        "first_conv": "patch_embed.proj",
        "classifier": "head.fc",
    }
    _heads = tuple(_width // 32 * 2**stage for stage in range(4))
    register(
        SwinSOLIDER,
        f"swin_{_size}_solider",
        _published,
        embed_dim=_width,
        depths=(2, 2, _depth, 2),
        num_heads=_heads,
        always_partition=True,  # its windows are of 7 x 7, of small maps, too
    )
