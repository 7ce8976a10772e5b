from __future__ import annotations

import pytest
import torch
import torch.distributed as dist
from torch.nn import functional as F

from pplr_lightning.distributed import new_waiting_group
from pplr_lightning.functional import engines, neighbor_lists, sharding
from pplr_lightning.functional.camera_neighbors import search_cameras
from pplr_lightning.functional.sharding import Share

from ..processes import launch


def draw_cameras(seed, images):
    """Draw cameras of very different sizes: one of a single image, one of two."""
    generator = torch.Generator().manual_seed(seed)
    cameras = torch.randint(0, 3, (images,), generator=generator).square()  # 0, 1 and 4
    few = torch.randperm(images, generator=generator)[:3]
    cameras[few] = torch.tensor([7, 9, 9])
    return cameras


def ranked(features, cameras, k, *, intra):
    """Rank images by float64 products, the lower index first among equals, -1 where there is none.

    Products are rounded, for those of equal images may differ in their last digits.
    """
    similarity = (features.double() @ features.double().T).mul(1e12).round()
    lists = torch.full((len(features), k), -1)
    for image in range(len(features)):
        allowed = ((cameras == cameras[image]) == intra).nonzero().flatten()
        order = similarity[image, allowed].argsort(descending=True, stable=True)[:k]
        lists[image, : len(order)] = allowed[order]
    return lists


@pytest.mark.parametrize("backend", ["faiss", "torch"])
def test_hand_computed_neighbours(backend):
    angle = torch.deg2rad(torch.tensor([0.0, 10.0, 25.0, 90.0]))
    features = torch.stack([angle.cos(), angle.sin()], dim=1)
    intra, inter = search_cameras(
        features, torch.tensor([5, 5, 3, 5]), Share(4), 3, 2, backend=backend
    )
    assert intra.tolist() == [[0, 1, 3], [1, 0, 3], [2, -1, -1], [3, 1, 0]]
    assert inter.tolist() == [[2, -1], [2, -1], [1, 0], [2, -1]]


@pytest.mark.parametrize("backend", ["faiss", "torch"])
@pytest.mark.parametrize("seed", range(5))
def test_equals_a_sort_of_all_pairs(draw_features, seed, backend):
    features = draw_features(seed, 150, duplicates=12)
    features[30:50] = features[60].clone()  # more equals than a search has to spare
    cameras = draw_cameras(seed, 150)
    intra, inter = search_cameras(features, cameras, Share(150), 6, 21, backend=backend)
    assert torch.equal(intra, ranked(features, cameras, 6, intra=True))
    assert torch.equal(inter, ranked(features, cameras, 21, intra=False))


def test_chunks_do_not_change_the_result(draw_features, monkeypatch):
    features, cameras = draw_features(1, 200), draw_cameras(1, 200)
    whole = search_cameras(features, cameras, Share(200), 6, 21, backend="torch")
    monkeypatch.setattr(engines, "CHUNK_BYTES", 7 * 4 * 100)
    monkeypatch.setattr(neighbor_lists, "CHUNK", 41)
    chunked = search_cameras(features, cameras, Share(200), 6, 21, backend="torch")
    assert all(torch.equal(a, b) for a, b in zip(whole, chunked, strict=True))


def _search(rank):
    generator = torch.Generator().manual_seed(0)
    features = F.normalize(torch.randn(120, 8, generator=generator), dim=1)
    features[100:120] = features[:20]
    cameras = draw_cameras(0, 120)
    cameras[:30] = 2  # a camera that only one rank has images of
    cameras[100:] = 4
    group, own = None, slice(None)
    if dist.is_initialized():
        sharding.BLOCK_BYTES = 20 * 8 * 4  # blocks smaller than a share
        group = new_waiting_group()
        cuts = [0, 30, 30, 50, 120] if dist.get_world_size() == 4 else [0, 30, 120]
        own = slice(cuts[rank], cuts[rank + 1])
    with Share(len(features[own]), group) as share:
        found = search_cameras(features[own], cameras, share, 6, 21)
        return [share.gather(lists) for lists in found]


@pytest.mark.parametrize("world_size", [2, 4])
def test_does_not_depend_on_the_number_of_ranks(world_size, tmp_path):
    alone = _search(0)
    for found in launch(_search, world_size, tmp_path):
        assert all(torch.equal(a, b) for a, b in zip(found, alone, strict=True))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("backend", ["auto", "faiss", "torch"])
def test_gpu_equals_a_sort_of_all_pairs(draw_features, backend):
    features, cameras = draw_features(3, 300, dim=32), draw_cameras(3, 300)
    intra, inter = search_cameras(features, cameras, Share(300), 6, 21, backend=backend)
    assert torch.equal(intra, ranked(features, cameras, 6, intra=True))
    assert torch.equal(inter, ranked(features, cameras, 21, intra=False))
