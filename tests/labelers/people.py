"""Embeddings of images that fall into groups, on one process and on several."""

from __future__ import annotations

import torch
import torch.distributed as dist
import torch.nn.functional as nnf
from torch import Tensor

from pplr_lightning.distributed import new_waiting_group
from pplr_lightning.functional.sharding import Share
from pplr_lightning.labelers import Space


def features(clusters: int = 5, each: int = 8, spread: float = 0.05) -> tuple[Tensor, Tensor]:
    """Unit features (N, 16) and part features (N, 16, 3), cluster after cluster."""
    torch.manual_seed(0)
    centres = nnf.normalize(torch.randn(clusters, 16), dim=1).repeat_interleave(each, 0)
    images = len(centres)
    return (
        nnf.normalize(centres + spread * torch.randn(images, 16), dim=1),
        nnf.normalize(centres.unsqueeze(2) + spread * torch.randn(images, 16, 3), dim=1),
    )


def shared_space(rank: int, *, broken: bool = False, frames: Tensor | None = None) -> Space:
    """Many images with ties at eps and duplicates, shared over the ranks there are."""
    whole, parts = features(clusters=40, each=9, spread=0.3)
    whole[100:110] = whole[200:210]
    whole[300:330] = whole[150].clone()  # more equals than a search has to spare
    if broken:
        whole[350, 3] = torch.nan
    group, own = None, slice(None)
    if dist.is_initialized():
        group = new_waiting_group()
        # one of four ranks has no image
        cuts = [0, 35, 35, 85, 360] if dist.get_world_size() == 4 else [0, 310, 360]
        own = slice(cuts[rank], cuts[rank + 1])
    return Space(
        lambda: (whole[own], parts[own]),
        share=Share(len(whole[own]), group),
        cameras=torch.arange(360) % 3,
        persons=torch.arange(360) // 9,
        frames=frames,
    )
