"""Generalised-mean pooling, which several published re-ID models average with."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class GeM(nn.Module):
    """Generalised mean (Radenović et al., TPAMI 2019): the p-th root of the mean of x^p.

    p is learned; 1 gives the average, infinity the maximum. Both steps stand on their own, so that
    one power serves the whole map and its stripes alike.

    Args:
        p: Where p starts, > 0.
    """

    def __init__(self, p: float = 3.0) -> None:
        super().__init__()
        self.p = nn.Parameter(torch.full((1,), p))

    def power(self, feature_map: Tensor) -> Tensor:
        """Raises a map (B, D, h, w) to the p-th power; values below 1e-6 count as that."""
        return feature_map.clamp(min=1e-6).pow(self.p)

    def root(self, mean: Tensor) -> Tensor:
        """Takes the p-th root of means of any shape."""
        return mean.pow(1 / self.p)
