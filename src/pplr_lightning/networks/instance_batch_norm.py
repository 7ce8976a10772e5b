"""Instance and batch normalisation side by side, as IBN-Net has them."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class InstanceBatchNorm(nn.Module):
    """Normalises half of the channels per image and the rest per batch (Pan et al., ECCV 2018).

    Instance statistics take the style of a camera out of the first half, batch statistics keep what
    tells people apart in the second.

    Args:
        num_features: Channels C; of an odd number the second half has one more.

    Example:
        >>> InstanceBatchNorm(6)(torch.randn(2, 6, 8, 4)).shape
        torch.Size([2, 6, 8, 4])
    """

    def __init__(self, num_features: int) -> None:
        super().__init__()
        half = num_features // 2
        # Names of IBN-Net's, by which its weights load.
        self.IN = nn.InstanceNorm2d(half, affine=True)
        self.BN = nn.BatchNorm2d(num_features - half)

    def forward(self, x: Tensor) -> Tensor:
        """Normalises maps (B, C, H, W)."""
        half = self.IN.num_features
        return torch.cat([self.IN(x[:, :half]), self.BN(x[:, half:])], dim=1)
