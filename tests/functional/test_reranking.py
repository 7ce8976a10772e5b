from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from pplr_lightning.functional import engines, jaccard, rerank_distance, reranking
from pplr_lightning.functional.reranking import Reranking, search_both_ends


def test_equals_the_authors_distance(reference):
    arrays = reference("evaluation")
    distance = rerank_distance(arrays["query_feature"], arrays["gallery_feature"])
    assert distance.shape == (80, 500)
    assert distance.dtype == torch.float32
    assert (distance - arrays["reranked_distance"]).abs().max() <= 1e-4


def dense_rerank(features, queries, k1, k2, lambda_):
    """Re-rank as the paper writes it, with sets and loops over the whole matrix."""
    squared = (2 - 2 * features.double().numpy() @ features.double().numpy().T) ** 2
    scaled = squared / squared.max(axis=1, keepdims=True)
    order = np.argsort(squared, axis=1)
    count = len(features)
    near = [set(row[: k1 + 1]) for row in order]
    nearer = [set(row[: round(k1 / 2) + 1]) for row in order]
    mutual = [{j for j in near[i] if i in near[j]} for i in range(count)]
    core = [{j for j in nearer[i] if i in nearer[j]} for i in range(count)]
    encoding = np.zeros((count, count))
    for i in range(count):
        accepted = [core[c] for c in mutual[i] if 3 * len(core[c] & mutual[i]) > 2 * len(core[c])]
        members = sorted(mutual[i].union(*accepted))
        weights = np.exp(-scaled[i, members])
        encoding[i, members] = weights / weights.sum()
    encoding = np.stack([encoding[row[:k2]].mean(axis=0) for row in order]) if k2 > 1 else encoding
    shared = np.stack(
        [np.minimum(row, encoding[queries:]).sum(axis=1) for row in encoding[:queries]]
    )
    return (1 - lambda_) * (1 - shared / (2 - shared)) + lambda_ * scaled[:queries, queries:]


@pytest.mark.parametrize(
    ("k1", "k2", "lambda_"), [(20, 6, 0.3), (7, 1, 0.0), (10, 3, 0.8), (1, 1, 0.5)]
)
def test_equals_dense_version(draw_features, k1, k2, lambda_):
    features = draw_features(k1, 130)
    distance = rerank_distance(features[:40], features[40:], k1=k1, k2=k2, lambda_=lambda_)
    expected = dense_rerank(features, 40, k1, k2, lambda_)
    np.testing.assert_allclose(distance.numpy(), expected, atol=1e-5)


def test_lambda_one_is_the_scaled_distance(draw_features):
    features = draw_features(1, 60)
    distance = rerank_distance(features[:10], features[10:], lambda_=1)
    squared = (2 - 2 * features @ features.T) ** 2
    expected = squared[:10, 10:] / squared[:10].amax(dim=1, keepdim=True)
    torch.testing.assert_close(distance, expected, atol=1e-6, rtol=0)


def test_chunks_do_not_change_the_result(draw_features, monkeypatch):
    features = draw_features(2, 90)
    whole = rerank_distance(features[:30], features[30:])
    monkeypatch.setattr(jaccard, "CHUNK", 1)
    monkeypatch.setattr(reranking, "CHUNK", 7)
    assert torch.equal(rerank_distance(features[:30], features[30:]), whole)


def test_few_distances_at_a_time(draw_features, monkeypatch):
    features = draw_features(2, 90)
    whole = rerank_distance(features[:30], features[30:])
    monkeypatch.setattr(engines, "CHUNK_BYTES", 7 * 4 * 60)
    torch.testing.assert_close(
        rerank_distance(features[:30], features[30:]), whole, atol=1e-6, rtol=0
    )


class TestSomeRows:
    """What processes do that share the images."""

    @pytest.mark.parametrize("duplicates", [0, 20])
    def test_searched_alone_are_what_they_are_among_all(self, draw_features, duplicates):
        features = draw_features(5, 100, duplicates=duplicates)
        whole = search_both_ends(features)
        cuts = [0, 1, 1, 34, 100]
        parts = [search_both_ends(features, slice(*cut)) for cut in pairwise(cuts)]
        for expected, part in zip(whole, zip(*parts, strict=True), strict=True):
            assert torch.equal(torch.cat(part), expected)

    def test_the_farthest_is_the_least_product(self, draw_features):
        features = draw_features(6, 50)
        exact = (features.double() @ features.double().T).amin(dim=1)
        torch.testing.assert_close(search_both_ends(features)[1], exact, atol=1e-12, rtol=0)

    def test_reranked_alone_are_what_they_are_among_all(self, draw_features):
        features = draw_features(7, 90)
        found = search_both_ends(features)
        expected = 2 - 2 * features[:30] @ features[30:].T
        some = expected[12:17].clone()
        Reranking(features, *found, queries=30).apply_(expected, slice(0, 30))
        Reranking(features, *found, queries=30, rows=slice(10, 20)).apply_(some, slice(12, 17))
        assert torch.equal(some, expected[12:17])


@pytest.mark.parametrize(("queries", "gallery"), [(0, 30), (30, 0)])
def test_no_queries_or_no_gallery(draw_features, queries, gallery):
    features = draw_features(3, 30)
    with pytest.raises(ValueError, match="needs queries and a gallery, got"):
        rerank_distance(features[:queries], features[:gallery])


def test_equal_features_are_at_distance_zero():
    features = F.normalize(torch.ones(30, 7), dim=1)
    distance = rerank_distance(features[:5], features[5:], k1=29, lambda_=0.3)
    torch.testing.assert_close(distance, torch.zeros(5, 25), atol=1e-2, rtol=0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"k1": 30}, "k1=30 for 29 images; lower k1"),
        ({"k2": 31}, "k2=31 for 30 images; lower k2"),
        ({"k1": 0}, "k1 must be at least 1, got 0"),
        ({"lambda_": 1.2}, r"lambda_ must be in \[0, 1\], got 1.2"),
    ],
)
def test_bad_options(draw_features, options, message):
    features = draw_features(3, 30)
    with pytest.raises(ValueError, match=message):
        rerank_distance(features[:10], features[10:], **options)


@pytest.mark.parametrize("side", ["query", "gallery"])
def test_bad_features(draw_features, side):
    features = draw_features(4, 30)
    sides = {"query": features[:10], "gallery": features[10:]}
    sides[side] = sides[side] * 2
    with pytest.raises(ValueError, match=f"{side}_features must be L2-normalised"):
        rerank_distance(sides["query"], sides["gallery"])


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_gpu_equals_cpu(reference):
    arrays = reference("evaluation")
    distance = rerank_distance(arrays["query_feature"].cuda(), arrays["gallery_feature"].cuda())
    assert (distance.cpu() - arrays["reranked_distance"]).abs().max() <= 1e-4
