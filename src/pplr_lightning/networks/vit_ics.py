"""ViTs with a convolutional stem, as TransReID-SSL trained them, which timm does not have."""

from __future__ import annotations

from typing import Any

from timm.layers import PatchEmbed
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from pplr_lightning.networks.instance_batch_norm import InstanceBatchNorm
from pplr_lightning.networks.registration import register

STEM_WIDTH, STEM_STRIDE = 64, 2


class ConvStemEmbed(PatchEmbed):  # type: ignore[misc]  # timm has no types
    """Patches of what three convolutions see, not of the pixels.

    The IBN-based convolution stem (ICS; Luo et al., 2021): 7 x 7 of stride 2, and twice 3 x 3; then
    a token is a linear map of 8 x 8 places, which are 16 x 16 pixels. The first two norms are half
    instance, half batch.

    Args:
        embed_dim: Width D of a token.
        patch_size: Pixels of a patch's side, even.
        **options: Of timm's `PatchEmbed`.
    """

    def __init__(self, embed_dim: int = 768, patch_size: int = 16, **options: Any) -> None:
        super().__init__(embed_dim=embed_dim, patch_size=patch_size, **options)
        width = STEM_WIDTH
        self.conv = nn.Sequential(
            nn.Conv2d(3, width, 7, stride=STEM_STRIDE, padding=3, bias=False),
            InstanceBatchNorm(width),
            nn.ReLU(),
            nn.Conv2d(width, width, 3, padding=1, bias=False),
            InstanceBatchNorm(width),
            nn.ReLU(),
            nn.Conv2d(width, width, 3, padding=1, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(),
        )
        side = patch_size // STEM_STRIDE
        self.proj = nn.Conv2d(width, embed_dim, kernel_size=side, stride=side)

    def forward(self, images: Tensor) -> Tensor:
        """Makes tokens (B, N, D) of images (B, 3, H, W), both multiples of the patch."""
        return self.proj(self.conv(images)).flatten(2).transpose(1, 2)


# TransReID-SSL fine-tunes with these values; timm builds such a model for one image size.
_published = {
    "mean": (0.5, 0.5, 0.5),
    "std": (0.5, 0.5, 0.5),
    "input_size": (3, 256, 128),
    "fixed_input_size": True,
    "first_conv": "patch_embed.conv.0",
    "classifier": "head",
}
for _name, _width, _heads in (("vit_small_ics", 384, 6), ("vit_base_ics", 768, 12)):
    _architecture = {"embed_dim": _width, "depth": 12, "num_heads": _heads}
    register(
        VisionTransformer,
        _name,
        _published,
        embed_layer=ConvStemEmbed,
        patch_size=16,
        **_architecture,
    )
