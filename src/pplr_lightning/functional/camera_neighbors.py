"""Nearest neighbours of L2-normalised features within each camera, and in all others."""

from __future__ import annotations

import torch
from torch import Tensor

from pplr_lightning.functional.engines import choose_engine, open_finder
from pplr_lightning.functional.neighbor_lists import Lists, add_block, no_lists
from pplr_lightning.functional.sharding import Share


@torch.no_grad()
def search_cameras(
    features: Tensor,
    cameras: Tensor,
    share: Share,
    k_intra: int,
    k_inter: int,
    *,
    backend: str = "auto",
) -> tuple[Tensor, Tensor]:
    """Find the most similar images of the same camera and of the others, exactly.

    Like `nearest_neighbors` it orders by dot products in float64, the lower index first among
    equals. Each camera's images, and all others, are copied while they are searched.

    Args:
        features: L2-normalised rows of this process, (n, D); on the CPU where there are several.
        cameras: Camera of each of the N images, on the CPU, (N,).
        share: The rows of this process among the N.
        k_intra: Neighbours of the same camera, the image itself included.
        k_inter: Neighbours of all other cameras together.
        backend: As for `nearest_neighbors`.

    Returns:
        Indices in 0 to N - 1, nearest first, (n, k_intra) and (n, k_inter) int64 on the CPU; -1
        behind them where a camera, or the others, have fewer images.
    """
    engine = choose_engine(backend)
    gallery = features.detach().float().contiguous()
    own = cameras[share.start : share.stop]
    members = {camera: (own == camera).nonzero().flatten() for camera in own.unique().tolist()}
    lists: dict[tuple[int, bool], Lists] = {}
    # A block is another process's share, or a part of it.
    for start, block in share.blocks(gallery):
        seen_by = cameras[start : start + len(block)]
        for camera, rows in members.items():
            for intra, k in ((True, k_intra), (False, k_inter)):
                places = ((seen_by == camera) == intra).nonzero().flatten()
                if len(places):
                    part = block[places]
                    known = lists.get((camera, intra)) or no_lists(len(rows), gallery.device)
                    find, places = open_finder(engine, part), (start + places).to(part.device)
                    lists[camera, intra] = add_block(known, gallery[rows], part, places, k, find)
    found = torch.full((len(own), k_intra), -1), torch.full((len(own), k_inter), -1)
    for (camera, intra), (indices, _) in lists.items():
        found[0 if intra else 1][members[camera], : indices.shape[1]] = indices.cpu()
    return found
