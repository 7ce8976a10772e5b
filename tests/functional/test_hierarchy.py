from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch
from scipy import sparse
from scipy.spatial.distance import pdist, squareform
from sklearn.cluster import HDBSCAN
from sklearn.metrics import adjusted_rand_score

from pplr_lightning.functional import hdbscan, jaccard_distance
from pplr_lightning.functional.hierarchy import _spanning_forest

from ..conftest import warns_of_nothing


def within(dense, limit=1.0):
    """Store the distances below the limit in units of it, zeros too."""
    near = dense < limit
    return sparse.csr_matrix((dense[near] / limit, near.nonzero()), dense.shape)


def complete(distance):
    """Fill in the distance 1 of pairs that are not stored."""
    dense, entries = np.ones(distance.shape), distance.tocoo()
    dense[entries.row, entries.col] = entries.data
    np.fill_diagonal(dense, 0)
    return dense


def draw_points(seed, images=150, groups=10):
    """Draw points of the plane in groups of different density; no two distances are equal."""
    rng = np.random.default_rng(seed)
    spread = rng.choice([0.01, 0.03, 0.08], images)[:, None]
    points = rng.random((groups, 2))[rng.integers(groups, size=images)]
    return within(squareform(pdist(points + rng.normal(size=(images, 2)) * spread)), 0.35)


def line(*places):
    return within(np.abs(np.subtract.outer(places, places)).astype(float), 10)


def scikit(distance, **options):
    model = HDBSCAN(metric="precomputed", copy=True, **{"min_cluster_size": 4} | options)
    return model.fit(complete(distance))


@pytest.mark.parametrize("min_samples", [1, 2])
@pytest.mark.parametrize("limit", [None, 25])
@pytest.mark.parametrize("seed", range(6))
def test_equals_scikit_learn_on_the_dense_matrix(seed, limit, min_samples):
    distance = draw_points(seed)
    options = {"min_samples": min_samples, "max_cluster_size": limit}
    labels = hdbscan(distance, **options)
    expected = scikit(distance, **options).labels_
    assert adjusted_rand_score(expected, labels) == 1
    assert np.array_equal(expected < 0, labels < 0)
    assert sorted(set(labels.tolist()) - {-1}) == list(range(int(labels.max()) + 1))
    assert labels.dtype == torch.int64
    assert labels.max() >= 4


@pytest.mark.parametrize("seed", range(4))
def test_joins_at_the_distances_of_scikit_learn(seed, draw_features):
    # Core distances make ties, on which the order of the images decides, in scikit-learn too:
    # labels may differ, the distances at which clusters join may not.
    for distance in (draw_points(seed), jaccard_distance(draw_features(seed, 200), k1=15)):
        model = scikit(distance)
        joined = np.sort(model._single_linkage_tree_["value"])
        ours = np.sort(_spanning_forest(distance, 4).data)
        np.testing.assert_array_equal(np.where(ours > 1e-29, ours, 0), joined[joined < 1])
    assert adjusted_rand_score(model.labels_, hdbscan(distance)) > 0.9


def test_hand_computed_clusters():
    distance = line(0, 1, 2, 3, 12, 13, 14, 15, 100)
    assert hdbscan(distance).tolist() == [0, 0, 0, 0, 1, 1, 1, 1, -1]
    assert hdbscan(distance, min_cluster_size=5).tolist() == [-1] * 9
    # Without the second group nothing parts: the rest is the root of the tree.
    assert hdbscan(distance[:4][:, :4]).tolist() == [-1] * 4


def test_images_reachable_at_the_largest_distance_alone_are_outliers():
    # Pairs 5 apart are near, but not with enough others: all join at distance 1.
    chain = np.arange(30) * 5.0
    assert hdbscan(line(*chain), min_samples=4).tolist() == [-1] * 30
    assert hdbscan(sparse.csr_matrix((30, 30))).tolist() == [-1] * 30
    groups = [*range(1000, 1005), *range(2000, 2005), *range(3000, 3005)]
    labels = hdbscan(line(*chain, *groups), min_samples=4).tolist()
    assert labels[:30] == [-1] * 30
    assert [len(set(labels[i : i + 5])) for i in (30, 35, 40)] == [1, 1, 1]
    assert sorted(set(labels)) == [-1, 0, 1, 2]
    # scikit-learn makes clusters of what nothing joins.
    assert (scikit(line(*chain, *groups)).labels_[:30] >= 0).any()


def test_duplicates_are_at_distance_zero_not_without_an_edge():
    places = [0, 0, 0, 0, 0, 1, 2, 12, 12, 12, 12, 12, 13, 14]
    labels = hdbscan(line(*places), min_samples=3)
    expected = scikit(line(*places), min_samples=3).labels_
    assert adjusted_rand_score(expected, labels) == 1
    assert set(labels[:5].tolist()) != set(labels[7:12].tolist())
    assert -1 not in labels[[0, 1, 2, 3, 4, 7, 8, 9, 10, 11]]


def test_diagonal_need_not_be_stored():
    distance = draw_points(0)
    bare = distance.tolil()
    bare.setdiag(0)  # a list of lists drops zeros
    assert bare.nnz == distance.nnz - 150
    assert torch.equal(hdbscan(bare.tocsr()), hdbscan(distance))


@warns_of_nothing
def test_is_reproducible_and_does_not_change_the_distance(draw_features):
    distance = jaccard_distance(draw_features(0, 200), k1=15)
    before = distance.copy()
    labels = hdbscan(distance)
    assert torch.equal(labels, hdbscan(distance))
    assert np.array_equal(distance.data, before.data)
    assert labels.max() > 3


def test_clusters_that_part_below_epsilon_stay_one():
    # Two pairs of groups, the groups of a pair at distance 0.3.
    places = [*range(4), *range(6, 10), *range(30, 34), *range(36, 40)]
    distance, options = line(*places), {"min_samples": 1, "cluster_selection_epsilon": 0.4}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # NumPy before 2.4
        try:
            expected = scikit(distance, **options).labels_
        except TypeError:
            with pytest.raises(ValueError, match=r"must be 0 with this scikit-learn.*got 0\.4"):
                hdbscan(distance, **options)
        else:
            labels = hdbscan(distance, **options)
            assert adjusted_rand_score(expected, labels) == 1
            assert labels.max() == 1
    assert hdbscan(distance, min_samples=1).max() == 3


@pytest.mark.parametrize(
    ("distance", "options", "message"),
    [
        (np.zeros((3, 3)), {}, "must be a sparse matrix, got ndarray; pass the result of"),
        (sparse.csr_matrix((3, 2)), {}, r"square.*\(3, 2\)"),
        (sparse.csr_matrix([[0, 1.5], [1.5, 0]]), {}, r"in \[0, 1\], got 1.5 to 1.5"),
        (sparse.csr_matrix([[0, np.nan], [1, 0]]), {}, r"in \[0, 1\], got nan"),
        (None, {"min_cluster_size": 1}, "min_cluster_size must be at least 2, got 1"),
        (None, {"min_samples": 0}, "min_samples must be at least 1, got 0"),
        (None, {"max_cluster_size": 3}, "at least min_cluster_size, 4, got 3; raise it"),
        (None, {"cluster_selection_epsilon": 1.0}, r"must be in \[0, 1\), got 1.0"),
    ],
)
def test_bad_input(distance, options, message):
    with pytest.raises(ValueError, match=message):
        hdbscan(sparse.csr_matrix((5, 5)) if distance is None else distance, **options)
