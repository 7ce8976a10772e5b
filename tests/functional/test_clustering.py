from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import sparse

from pplr_lightning.functional import (
    choose_eps,
    cluster_centroids,
    dbscan,
    jaccard_distance,
    nearest_neighbors,
    neighbor_components,
)
from pplr_lightning.functional.clustering import camera_pairs

from ..conftest import warns_of_nothing


def path_distance(*steps):
    """Return the distances of points on a line with these gaps, and 9 beyond the neighbours."""
    dense = np.full((len(steps) + 1, len(steps) + 1), 9.0)
    np.fill_diagonal(dense, 0)
    for i, step in enumerate(steps):
        dense[i, i + 1] = dense[i + 1, i] = step
    return dense


def store(dense):
    """Store all of a dense matrix, zeros too."""
    rows, columns = np.indices(dense.shape).reshape(2, -1)
    return sparse.csr_matrix(sparse.coo_matrix((dense.ravel(), (rows, columns)), dense.shape))


def test_equals_the_authors_labels(reference):
    arrays = reference("labels")
    labels = dbscan(arrays["jaccard"], eps=float(arrays["eps"]), min_samples=4)
    assert torch.equal(labels, arrays["pseudo_label"])
    assert int((labels == -1).sum()) == 58
    assert labels.dtype == torch.int64


def test_hand_computed_clusters():
    # Two chains and a point apart; the ends are border points (two neighbours of three).
    distance = path_distance(0.1, 0.1, 0.9, 0.2, 0.2, 0.7)
    assert dbscan(distance, eps=0.5, min_samples=3).tolist() == [0, 0, 0, 1, 1, 1, -1]
    assert dbscan(distance, eps=0.75, min_samples=3).tolist() == [0, 0, 0, 1, 1, 1, 1]
    assert dbscan(distance, eps=0.1, min_samples=3).tolist() == [0, 0, 0, -1, -1, -1, -1]


@pytest.mark.parametrize("kind", [np.asarray, torch.from_numpy, store])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_pair_at_eps_is_within(kind, dtype):
    for step, expected in ((0.5, 0), (0.5 + 5e-7, 0), (0.5 + 3e-6, -1)):
        labels = dbscan(kind(path_distance(step).astype(dtype)), eps=0.5, min_samples=2)
        assert labels.tolist() == [expected] * 2


def test_stored_zero_is_near_and_nothing_stored_is_far():
    distance = store(path_distance(0.0, 0.3))
    assert dbscan(distance, eps=0.2, min_samples=2).tolist() == [0, 0, -1]
    distance.eliminate_zeros()
    assert dbscan(distance, eps=0.2, min_samples=2).tolist() == [-1, -1, -1]


@warns_of_nothing
def test_sparse_equals_dense_and_is_not_changed(draw_features):
    distance = jaccard_distance(draw_features(0, 250), k1=15)
    before = distance.copy()
    dense = np.ones(distance.shape, dtype=np.float32)
    entries = distance.tocoo()
    dense[entries.row, entries.col] = entries.data
    labels = dbscan(distance, eps=0.5)
    assert torch.equal(labels, dbscan(dense, eps=0.5))
    assert torch.equal(labels, dbscan(entries, eps=0.5))
    assert labels.max() > 3
    assert np.array_equal(distance.data, before.data)
    assert np.array_equal(distance.indices, before.indices)


@pytest.mark.parametrize(
    ("shape", "options", "message"),
    [
        ((3, 2), {}, r"square.*\(3, 2\)"),
        ((3,), {}, r"square.*\(3,\)"),
        ((3, 3), {"eps": -0.1}, "eps must not be negative, got -0.1"),
        ((3, 3), {"min_samples": 0}, "min_samples must be at least 1, got 0"),
    ],
)
def test_bad_dbscan_input(shape, options, message):
    with pytest.raises(ValueError, match=message):
        dbscan(np.zeros(shape), **options)


def test_hand_computed_components():
    # 0 and 3, 2 and 5 name each other; 1 names 0, which does not name it; 4 names 3 likewise.
    neighbors = torch.tensor([[0, 3, 1], [1, 0, 4], [2, 5, 0], [3, 0, 4], [4, 3, 1], [5, 2, 1]])
    assert neighbor_components(neighbors, k=1).tolist() == [0, -1, 1, 0, -1, 1]
    # With two all are linked but 2 and 5: 0 and 1, 1 and 4, 4 and 3.
    assert neighbor_components(neighbors, k=2).tolist() == [0, 0, 1, 0, 0, 1]


@pytest.mark.parametrize("k", [1, 2, 4])
def test_components_equal_a_walk_over_the_dense_graph(draw_features, k):
    features = draw_features(3, 150)
    neighbors = nearest_neighbors(features, k + 2)
    similarity = (features @ features.T).fill_diagonal_(-2)
    near = torch.zeros(150, 150, dtype=torch.bool)
    near.scatter_(1, similarity.topk(k).indices, True)
    near = near & near.T
    expected, count = torch.full((150,), -1), 0
    for image in range(150):
        if expected[image] < 0 and near[image].any():
            reached = near[image]
            while not torch.equal(reached, wider := reached | near[reached].any(dim=0)):
                reached = wider
            expected[reached], count = count, count + 1
    labels = neighbor_components(neighbors, k=k)
    assert torch.equal(labels, expected)
    assert labels.dtype == torch.int64
    assert count > 1


def test_image_behind_its_duplicates_is_not_its_own_neighbor():
    # Four equal images: 2 and 3 do not stand in their own lists; the nearest of all is the lowest.
    lists = nearest_neighbors(torch.ones(4, 1), 2)
    assert lists.tolist() == [[0, 1]] * 4
    assert neighbor_components(lists, k=1).tolist() == [0, 0, -1, -1]


@pytest.mark.parametrize(
    ("k", "message"),
    [
        (0, "k must be at least 1, got 0"),
        (2, r"neighbors must be \(3, 3 or more\), got shape \(3, 2\)"),
    ],
)
def test_bad_components_input(k, message):
    with pytest.raises(ValueError, match=message):
        neighbor_components(torch.zeros(3, 2, dtype=torch.int64), k=k)


def test_equals_the_authors_centroids(reference):
    arrays = reference("labels")
    labels = arrays["pseudo_label"]
    centroids = cluster_centroids(arrays["features_global"], labels)
    assert (centroids - arrays["centroid_global"]).abs().max() <= 1e-6
    for part in range(3):
        centroids = cluster_centroids(arrays["features_part"][..., part], labels)
        assert (centroids - arrays["centroid_part"][..., part]).abs().max() <= 1e-6


def test_hand_computed_centroids():
    features = torch.tensor([[1.0, 0.0], [0.0, 1.0], [5.0, 5.0], [0.0, 2.0]])
    centroids = cluster_centroids(features, torch.tensor([1, 1, -1, 0]))
    root = 0.5**0.5
    torch.testing.assert_close(centroids, torch.tensor([[0.0, 1.0], [root, root]]))


def test_no_cluster_has_no_centroids():
    assert cluster_centroids(torch.ones(3, 2), torch.full((3,), -1)).shape == (0, 2)


def test_gap_in_labels():
    with pytest.raises(ValueError, match="without gaps, got none of label 1 below 2"):
        cluster_centroids(torch.ones(3, 2), torch.tensor([0, 2, -1]))


def test_centroid_shapes():
    with pytest.raises(ValueError, match=r"\(3, 2\) and \(2,\); give one label per row"):
        cluster_centroids(torch.ones(3, 2), torch.tensor([0, 1]))


def test_pairs_of_clusters_and_cameras():
    labels = torch.tensor([1, 0, -1, 1, 0, 1])
    cameras = torch.tensor([3, 5, 3, 0, 5, 3])
    pairs, clusters, seen_by = camera_pairs(labels, cameras)
    assert clusters.tolist() == [0, 1, 1]
    assert seen_by.tolist() == [5, 0, 3]
    assert pairs.tolist() == [2, 0, -1, 1, 0, 2]
    assert [len(part) for part in camera_pairs(torch.full((4,), -1), cameras[:4])] == [4, 0, 0]


@pytest.mark.parametrize("kind", [np.asarray, sparse.csr_matrix, torch.from_numpy])
def test_the_chosen_eps_is_the_authors(reference, kind):
    arrays = reference("gcl_eps")
    eps = choose_eps(kind(arrays["distance"].numpy()), rho=float(arrays["rho"]))
    assert eps == pytest.approx(float(arrays["eps"]), rel=1e-12)


def test_pairs_that_are_not_stored_are_at_one_and_equals_do_not_count():
    near = [(0, 1, 0.0), (0, 2, 0.2), (1, 2, 0.4)]  # of 4 images; the fourth is far from all
    rows, columns, values = (np.array(part) for part in zip(*near, strict=True))
    both = np.concatenate([rows, columns]), np.concatenate([columns, rows])
    distance = sparse.csr_matrix((np.tile(values, 2), both), (4, 4))
    assert choose_eps(distance, rho=0.4) == pytest.approx((0.2 + 0.4) / 2)
    assert choose_eps(distance, rho=0.8) == pytest.approx((0.2 + 0.4 + 2) / 4)


def test_bad_shares():
    with pytest.raises(ValueError, match=r"rho must be in \(0, 1\), got 1.0"):
        choose_eps(np.ones((3, 3)), rho=1.0)
    with pytest.raises(ValueError, match=r"rho=0.01 of 3 pairs is none; raise rho"):
        choose_eps(np.ones((3, 3)), rho=0.01)
