from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from pplr_lightning.functional import dbscan, jaccard_distance, nearest_neighbors
from pplr_lightning.functional import jaccard as module


def dense_jaccard(features, lists, k1, k2):
    """Compute the whole distance matrix as the paper writes it, with sets and loops."""
    count = len(lists)
    similarity = features.double().numpy() @ features.double().numpy().T
    near = [set(row[:k1]) for row in lists]
    nearer = [set(row[: round(k1 / 2) + 1]) for row in lists]
    mutual = [{j for j in near[i] if i in near[j]} for i in range(count)]
    core = [{j for j in nearer[i] if i in nearer[j]} for i in range(count)]
    encoding = np.zeros((count, count))
    for i in range(count):
        expanded = set(mutual[i])
        for candidate in mutual[i]:
            if len(core[candidate] & mutual[i]) > 2 / 3 * len(core[candidate]):
                expanded |= core[candidate]
        members = sorted(expanded)
        weights = np.exp(2 * similarity[i, members] - 2)
        encoding[i, members] = weights / weights.sum()
    if k2 > 1:
        encoding = np.stack([encoding[row[:k2]].mean(axis=0) for row in lists])
    shared = np.stack([np.minimum(row, encoding).sum(axis=1) for row in encoding])
    return np.maximum(1 - shared / (2 - shared), 0)


def to_dense(distance):
    """Fill a sparse distance with 1 where nothing is stored; `toarray` would give 0."""
    dense = np.ones(distance.shape)
    entries = distance.tocoo()
    dense[entries.row, entries.col] = entries.data
    return dense


@pytest.mark.parametrize("backend", ["faiss", "torch"])
def test_equals_the_authors_distance(reference, backend):
    arrays = reference("labels")
    features = arrays["features_global"]
    neighbors = nearest_neighbors(features, 30, backend=backend)
    distance = jaccard_distance(
        features, k1=int(arrays["k1"]), k2=int(arrays["k2"]), neighbors=neighbors
    )
    assert np.abs(to_dense(distance) - arrays["jaccard"].numpy()).max() <= 1e-5
    assert torch.equal(dbscan(distance), arrays["pseudo_label"])


@pytest.mark.parametrize("max_distance", [1.0, 0.5])
def test_labels_at_ties_are_those_above(reference, max_distance):
    arrays = reference("ties")
    distance = jaccard_distance(arrays["features_global"], max_distance=max_distance)
    labels = dbscan(distance, eps=0.5, min_samples=4)
    assert torch.equal(labels, arrays["pseudo_label_above"])
    assert not torch.equal(labels, arrays["pseudo_label_below"])


@pytest.mark.parametrize("seed", range(20))
def test_equals_dense_version(draw_features, seed):
    choice = np.random.default_rng(seed)
    images, k1 = int(choice.integers(40, 400)), int(choice.integers(4, 31))
    k2, duplicates = int(choice.integers(1, 7)), int(choice.choice([0, 5, 15]))
    features = draw_features(seed, images, duplicates=duplicates)
    neighbors = nearest_neighbors(features, max(k1, k2) + 3)
    distance = jaccard_distance(features, k1=k1, k2=k2, neighbors=neighbors)
    expected = dense_jaccard(features, neighbors.tolist(), k1, k2)
    np.testing.assert_allclose(to_dense(distance), expected, atol=1e-6)
    for eps in (0.3, 0.5):
        assert torch.equal(dbscan(distance, eps=eps), dbscan(expected, eps=eps))


def test_form_of_the_result(draw_features):
    features = draw_features(0, 200, duplicates=20)
    distance = jaccard_distance(features, k1=12, k2=4)
    assert distance.dtype == np.float32
    assert distance.shape == (200, 200)
    parts = distance.data, distance.indices, distance.indptr
    assert type(distance)(parts).has_canonical_format  # looked at anew: sorted, nothing twice
    assert (distance != distance.T).nnz == 0
    assert distance.data.min() == 0
    assert 0.9 < distance.data.max() <= 1
    stored = set(zip(*distance.tocoo().coords, strict=True))
    assert all((i, i) in stored for i in range(200))


def encode(features, k1, k2):
    """Return the averaged encodings Q of all images."""
    lists = nearest_neighbors(features, max(k1, k2)).numpy().astype(np.int32)
    encoding = module.expand_reciprocal(lists[:, :k1], round(k1 / 2) + 1, range(len(lists)))
    encoding.data[:] = 2 * module.entry_similarity(features, encoding) - 2
    module.normalize_exponentials(encoding)
    return module.average_nearest(encoding, lists, k2, range(len(lists)))


def test_sums_are_symmetric_to_the_last_bit(draw_features):
    average = encode(draw_features(6, 200), 12, 6)
    np.testing.assert_allclose(average.sum(axis=1), 1, rtol=1e-6)
    sums = module.minima_sums(average, average)
    assert (sums != sums.T).nnz == 0


def test_duplicates_keep_a_stored_zero():
    # Each of four points three times: with k1 = 3 every list holds just the duplicates.
    features = torch.eye(4).repeat_interleave(3, dim=0)
    distance = jaccard_distance(features, k1=3, k2=2)
    block = np.kron(np.eye(4), np.ones((3, 3)))
    assert distance.nnz == 36
    assert np.array_equal(distance.data, np.zeros(36, dtype=np.float32))
    assert np.array_equal(to_dense(distance), 1 - block)
    assert dbscan(distance, min_samples=3).tolist() == [0] * 3 + [1] * 3 + [2] * 3 + [3] * 3


def test_hand_computed_distance():
    # On a line 0 - 1 - 2 with k1 = 2, the lists are {0, 1}, {1, 0}, {2, 1}: only 0 and 1 are
    # mutual. Their rows are the softmax over themselves and each other, that of 2 itself alone.
    angle = torch.tensor([0.0, 0.5, 1.1])
    features = torch.stack([angle.cos(), angle.sin()], dim=1)
    distance = to_dense(jaccard_distance(features, k1=2, k2=1))
    other = np.exp(-(2 - 2 * np.cos(0.5)))
    shared = 2 * other / (1 + other)
    expected = np.ones((3, 3)) - np.eye(3)
    expected[0, 1] = expected[1, 0] = 1 - shared / (2 - shared)
    np.testing.assert_allclose(distance, expected, atol=1e-7)


def test_max_distance_only_leaves_out(draw_features):
    features = draw_features(1, 300)
    full = jaccard_distance(features, k1=15)
    near = jaccard_distance(features, k1=15, max_distance=0.5)
    dense = to_dense(full)
    assert 0 < near.nnz < full.nnz
    assert np.array_equal(to_dense(near), np.where(dense <= 0.5 + 1e-6, dense, 1))


def test_chunks_do_not_change_the_result(draw_features, monkeypatch):
    features = draw_features(2, 150)
    whole = jaccard_distance(features, k1=10)
    for chunk in (1, 7, 149):
        monkeypatch.setattr(module, "CHUNK", chunk)
        chunked = jaccard_distance(features, k1=10)
        for name in ("data", "indices", "indptr"):
            assert np.array_equal(getattr(chunked, name), getattr(whole, name))


def test_memory_stays_below_one_dense_matrix(draw_features):
    features = draw_features(3, 3000, dim=32)
    neighbors = nearest_neighbors(features, 20)
    jaccard_distance(features[:100], k1=20)  # compiles
    tracemalloc.start()
    jaccard_distance(features, k1=20, neighbors=neighbors, max_distance=0.5)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 4 * 3000**2 / 2


def test_single_and_double_precision_agree(draw_features):
    features = draw_features(4, 200)
    neighbors = nearest_neighbors(features, 12)
    single = jaccard_distance(features, k1=12, neighbors=neighbors)
    double = jaccard_distance(features.double(), k1=12, neighbors=neighbors)
    assert np.array_equal(single.indices, double.indices)
    np.testing.assert_allclose(single.data, double.data, atol=1e-6)
    assert torch.equal(dbscan(single), dbscan(double))


def test_small_and_equal_sets():
    assert to_dense(jaccard_distance(torch.ones(1, 1), k1=1, k2=1)).tolist() == [[0]]
    equal = F.normalize(torch.ones(40, 4), dim=1)
    assert np.array_equal(to_dense(jaccard_distance(equal, k1=40)), np.zeros((40, 40)))
    # With k1 < N, images that are in no list have no encoding of their own; k2 gives them one.
    assert dbscan(jaccard_distance(equal, k1=10)).unique().tolist() == [0]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"k1": 11}, "k1=11 for 10 images; lower k1"),
        ({"k1": 5, "k2": 11}, "k2=11 for 10 images; lower k2"),
        ({"k1": 0}, "k1 must be at least 1, got 0"),
        ({"k1": 5, "max_distance": 1.5}, r"max_distance must be in \[0, 1\], got 1.5"),
        ({"k1": 5, "neighbors": torch.zeros(10, 4, dtype=torch.int64)}, r"\(10, 6 or more\).*4"),
        (
            {"k1": 5, "neighbors": torch.full((10, 6), torch.nan)},
            "whole numbers, got torch.float32",
        ),
        ({"k1": 5, "neighbors": torch.full((10, 6), -1)}, "indices 0 to 9, got -1 to -1"),
        ({"k1": 5, "neighbors": torch.full((10, 6), 10)}, "indices 0 to 9, got 10 to 10"),
    ],
)
def test_bad_options(draw_features, options, message):
    with pytest.raises(ValueError, match=message):
        jaccard_distance(draw_features(5, 10), **options)


@pytest.mark.parametrize(
    ("features", "message"),
    [
        (torch.full((10, 2), torch.nan), "NaN or Inf in 10 of 10"),
        (torch.ones(10, 2), "L2-normalised"),
        (torch.ones(10, 2, 1), "2-D"),
    ],
)
def test_bad_features(features, message):
    with pytest.raises(ValueError, match=message):
        jaccard_distance(features, k1=5, neighbors=torch.zeros(10, 6, dtype=torch.int64))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_gpu_equals_cpu(reference):
    arrays = reference("ties")
    distance = jaccard_distance(arrays["features_global"].cuda())
    assert torch.equal(dbscan(distance), arrays["pseudo_label_above"])
