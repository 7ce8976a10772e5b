from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
import torch
import torch.distributed as dist
from sklearn.metrics import adjusted_rand_score
from torch.nn import functional as F

from pplr_lightning.distributed import new_waiting_group
from pplr_lightning.functional import (
    camera_jaccard_distance,
    dbscan,
    engines,
    jaccard_distance,
    neighbor_lists,
    sharding,
)
from pplr_lightning.functional import jaccard as module
from pplr_lightning.functional.camera_jaccard import (
    camera_jaccard_rows,
    joined_entries,
    search_cameras,
)
from pplr_lightning.functional.sharding import Share

from ..processes import launch
from .test_jaccard import to_dense


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


def dense_distance(features, cameras, k1_intra=5, k1_inter=20, k2_intra=2, k2_inter=4):
    """Compute the whole distance matrix with sets, loops and matrices of N x N."""
    count = len(features)
    similarity = features.double().numpy() @ features.double().numpy().T
    intra = ranked(features, cameras, count, intra=True).tolist()
    inter = ranked(features, cameras, count, intra=False).tolist()
    encoding = np.zeros((count, count))
    for i in range(count):
        members = []
        for ranking, columns in ((intra, k1_intra + 1), (inter, k1_inter + 1)):
            members += [j for j in ranking[i][:columns] if j >= 0 and i in ranking[j][:columns]]
        weights = np.exp(2 * similarity[i, members] - 2)
        encoding[i, members] = weights / weights.sum()
    nearest = [[*a[:k2_intra], *b[:k2_inter]] for a, b in zip(intra, inter, strict=True)]
    average = np.stack([encoding[[j for j in row if j >= 0]].mean(axis=0) for row in nearest])
    shared = np.stack([np.minimum(row, average).sum(axis=1) for row in average])
    return np.maximum(1 - shared / (2 - shared), 0)


def test_hand_computed_distance():
    # On a line, camera 0: a, b; camera 1: c, d, e, with c near a and d near b.
    # Within cameras a and b are mutual, c and d are; e is nobody's. Across them all of a, b, c, d
    # are in each other's first two; e, with b and a first, is in neither's.
    # So a, b, c and d are encoded by all four of them, e by itself.
    angle = torch.tensor([0.0, 1.0, 0.2, 1.3, 2.6])
    features = torch.stack([angle.cos(), angle.sin()], dim=1)
    counts = {"k1_intra": 1, "k1_inter": 1, "k2_intra": 1, "k2_inter": 1}
    cameras = torch.tensor([0, 0, 1, 1, 1])
    distance = to_dense(camera_jaccard_distance(features, cameras, **counts))

    def encoded(image):
        weights = np.exp(2 * np.cos(angle[:4].double().numpy() - float(angle[image])) - 2)
        return np.append(weights / weights.sum(), 0)

    # Each is averaged with the first of the other camera: a with c, b with d, e with b.
    near_a, near_b = (encoded(0) + encoded(2)) / 2, (encoded(1) + encoded(3)) / 2
    near_e = (encoded(1) + np.eye(5)[4]) / 2
    average = np.stack([near_a, near_b, near_a, near_b, near_e])
    shared = np.minimum(average[:, None], average).sum(axis=2)
    np.testing.assert_allclose(distance, 1 - shared / (2 - shared), atol=1e-6)
    assert distance[0, 2] == distance[1, 3] == 0
    assert 0.1 < distance[0, 1] < 0.9


@pytest.mark.parametrize("backend", ["faiss", "torch"])
@pytest.mark.parametrize("seed", range(6))
def test_equals_dense_version(draw_features, seed, backend):
    choice = np.random.default_rng(seed)
    images, duplicates = int(choice.integers(60, 250)), int(choice.choice([0, 5, 15]))
    names = ("k1_intra", "k1_inter", "k2_intra", "k2_inter")
    counts = {name: int(choice.integers(1, 12)) for name in names} if seed else {}
    features = draw_features(seed, images, duplicates=duplicates)
    cameras = draw_cameras(seed, images)
    distance = camera_jaccard_distance(features, cameras, **counts, backend=backend)
    expected = dense_distance(features, cameras, **counts)
    np.testing.assert_allclose(to_dense(distance), expected, atol=1e-6)
    assert torch.equal(dbscan(distance), dbscan(expected))


def test_every_image_of_a_camera_of_its_own(draw_features):
    features, cameras = draw_features(1, 50), torch.arange(50)
    distance = camera_jaccard_distance(features, cameras)
    np.testing.assert_allclose(to_dense(distance), dense_distance(features, cameras), atol=1e-6)


def test_cameras_are_names(draw_features):
    features, cameras = draw_features(2, 120), draw_cameras(2, 120)
    renamed = camera_jaccard_distance(features, 1000 - 3 * cameras.int())
    assert (renamed != camera_jaccard_distance(features, cameras)).nnz == 0


def test_form_of_the_result(draw_features):
    features = draw_features(0, 200, duplicates=20)
    distance = camera_jaccard_distance(features, draw_cameras(0, 200))
    assert distance.dtype == np.float32
    assert distance.shape == (200, 200)
    parts = distance.data, distance.indices, distance.indptr
    assert type(distance)(parts).has_canonical_format  # looked at anew: sorted, nothing twice
    assert (distance != distance.T).nnz == 0
    stored = set(zip(*distance.tocoo().coords, strict=True))
    assert all((i, i) in stored for i in range(200))
    assert np.array_equal(distance.diagonal(), np.zeros(200))


def test_finds_identities_where_cameras_shift_features_more_than_identities():
    generator = torch.Generator().manual_seed(0)
    ids, cameras = torch.arange(400) % 20, torch.arange(400) // 20 % 4
    features = torch.randn(20, 64, generator=generator)[ids]
    features += 1.2 * torch.randn(4, 64, generator=generator)[cameras]
    features = F.normalize(features + 0.4 * torch.randn(400, 64, generator=generator), dim=1)
    plain = dbscan(jaccard_distance(features, k1=20))
    aware = dbscan(camera_jaccard_distance(features, cameras))
    assert adjusted_rand_score(ids, plain) < 0.4
    assert adjusted_rand_score(ids, aware) > 0.9


def test_joined_entries_are_sorted_and_without_gaps():
    entries = joined_entries(np.array([[3, -1, 0, 2], [-1, -1, -1, -1], [1, -1, 4, -1]]), 5)
    assert entries.shape == (3, 5)
    assert entries.indptr.tolist() == [0, 3, 3, 5]
    assert entries.indices.tolist() == [0, 2, 3, 1, 4]


def test_max_distance_only_leaves_out(draw_features):
    features, cameras = draw_features(1, 300), draw_cameras(1, 300)
    full = camera_jaccard_distance(features, cameras)
    near = camera_jaccard_distance(features, cameras, max_distance=0.5)
    dense = to_dense(full)
    assert 0 < near.nnz < full.nnz
    assert np.array_equal(to_dense(near), np.where(dense <= 0.5 + 1e-6, dense, 1))


def test_chunks_and_precision_do_not_change_the_result(draw_features, monkeypatch):
    features, cameras = draw_features(2, 150), draw_cameras(2, 150)
    whole = camera_jaccard_distance(features, cameras)
    monkeypatch.setattr(module, "CHUNK", 7)
    other = camera_jaccard_distance(features.double(), cameras)
    for name in ("data", "indices", "indptr"):
        assert np.array_equal(getattr(other, name), getattr(whole, name))


def test_memory_stays_below_one_dense_matrix(draw_features):
    features, cameras = draw_features(3, 3000, dim=32), torch.arange(3000) % 5
    camera_jaccard_distance(features[:100], cameras[:100])  # compiles
    tracemalloc.start()
    camera_jaccard_distance(features, cameras, backend="torch", max_distance=0.5)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 4 * 3000**2 / 2


def _distance(rank):
    generator = torch.Generator().manual_seed(0)
    centres = torch.randn(20, 16, generator=generator).repeat_interleave(9, dim=0)
    features = F.normalize(centres + 0.6 * torch.randn(180, 16, generator=generator), dim=1)
    features[170:] = features[:10]
    cameras = draw_cameras(0, 180)
    group, own = None, slice(None)
    if dist.is_initialized():
        group = new_waiting_group()
        # one of four ranks has no image
        cuts = [0, 35, 35, 85, 180] if dist.get_world_size() == 4 else [0, 150, 180]
        own = slice(cuts[rank], cuts[rank + 1])
    with Share(len(features[own]), group) as share:
        rows = camera_jaccard_rows(
            features[own],
            cameras,
            share,
            k1=(5, 20),
            k2=(2, 4),
            backend="auto",
            max_distance=0.6,
        )
        return share.gather_sparse(rows)


@pytest.mark.parametrize("world_size", [2, 4])
def test_does_not_depend_on_the_number_of_ranks(world_size, tmp_path):
    alone = _distance(0)
    assert alone.nnz > 500
    for distance in launch(_distance, world_size, tmp_path):
        for name in ("data", "indices", "indptr"):
            assert np.array_equal(getattr(distance, name), getattr(alone, name))


@pytest.mark.parametrize(
    ("cameras", "options", "message"),
    [
        ([0, 1] * 4, {}, r"cameras must have shape \(10,\), got \(8,\)"),
        ([0, 1, 0, -1, -1] * 2, {}, "got -1 for 4 of 10 images, first image 3; give every image"),
        ([-1] * 10, {}, "got -1 for 10 of 10 images, first image 0; .*or use jaccard_distance"),
        ([3] * 10, {}, r"must be two or more, got \[3\] for all 10 images; use jaccard_distance"),
        ([0, 1] * 5, {"k1_intra": 0}, "k1_intra must be at least 1, got 0"),
        ([0, 1] * 5, {"k1_inter": 0}, "k1_inter must be at least 1, got 0"),
        ([0, 1] * 5, {"k2_intra": -1}, "k2_intra must be at least 1, got -1"),
        ([0, 1] * 5, {"k2_inter": 0}, "k2_inter must be at least 1, got 0"),
        ([0, 1] * 5, {"max_distance": 1.5}, r"max_distance must be in \[0, 1\], got 1.5"),
        ([0, 1] * 5, {"backend": "fais"}, "backend must be one of"),
    ],
)
def test_bad_options(draw_features, cameras, options, message):
    with pytest.raises(ValueError, match=message):
        camera_jaccard_distance(draw_features(5, 10), torch.tensor(cameras), **options)


def test_bad_features():
    with pytest.raises(ValueError, match="L2-normalised"):
        camera_jaccard_distance(torch.ones(10, 2), torch.arange(10))


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


def test_chunks_do_not_change_the_search(draw_features, monkeypatch):
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
def test_search_does_not_depend_on_the_number_of_ranks(world_size, tmp_path):
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
