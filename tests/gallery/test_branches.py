from __future__ import annotations

import pytest
import torch
from torch.nn.functional import normalize

from pplr_lightning.evaluation.extraction import join_features
from pplr_lightning.functional import rerank_distance
from pplr_lightning.gallery.branches import (
    branch_shares,
    branch_similarity,
    rerank,
    scale_branches,
)


def branches(images: int, seed: int = 0) -> torch.Tensor:
    """Unit vectors of three branches, (N, 3, 8)."""
    generator = torch.Generator().manual_seed(seed)
    return normalize(torch.randn(images, 3, 8, generator=generator), dim=2)


def joined(rows: torch.Tensor) -> torch.Tensor:
    return join_features(rows[:, 0], rows[:, 1:].transpose(1, 2), "both")


class TestShares:
    def test_sum_to_one(self):
        assert branch_shares([2, 1, 1], "both", 24).tolist() == [0.5, 0.25, 0.25]
        assert branch_shares([3], "parts", 24).tolist() == [1]

    @pytest.mark.parametrize(
        ("weights", "features", "message"),
        [
            ([1], "global", "hold the global feature alone, there is nothing to weigh"),
            ([1], "both", r"1 weights \[1.0\] do not fit .* one of the global feature and of each"),
            ([1] * 5, "parts", "5 weights .* do not fit vectors of 24 dimensions: .* each part"),
            ([], "parts", "0 weights"),
            ([1, -1, 1], "both", "finite ones of 0 or more"),
            ([0, 0, 0], "both", "not all of them 0"),
            ([1, float("nan"), 1], "both", "finite ones"),
        ],
    )
    def test_bad(self, weights, features, message):
        with pytest.raises(ValueError, match=message):
            branch_shares(weights, features, 24)


def test_similarity_of_each_branch():
    rows, query = branches(4), branches(1, seed=1)
    found = branch_similarity(joined(query)[0], joined(rows), 3)
    assert torch.allclose(found, torch.einsum("bd,nbd->nb", query[0], rows), atol=1e-6)
    assert torch.allclose(found.mean(dim=1), joined(rows) @ joined(query)[0], atol=1e-6)


def test_scaling():
    scaled = scale_branches(joined(branches(4)), torch.tensor([1.0, 0.0, 2.0])).view(4, 3, 8)
    assert torch.allclose(scaled * 3**0.5, branches(4) * torch.tensor([1, 0, 2])[:, None])


class TestRerank:
    def test_is_that_of_functional(self):
        rows = joined(branches(40))
        expected = rerank_distance(rows[:1], rows[1:])[0]
        assert torch.allclose(rerank(rows[0], rows[1:], torch.ones(1)), expected, atol=1e-6)

    def test_weighs_the_branches(self):
        rows = branches(40)
        found = rerank(joined(rows)[0], joined(rows)[1:], torch.tensor([0.0, 1.0, 0.0]))
        expected = rerank_distance(rows[:1, 1], rows[1:, 1])[0]
        assert torch.allclose(found, expected, atol=1e-4)

        shares = torch.tensor([0.5, 0.4, 0.1])
        found = rerank(joined(rows)[0], joined(rows)[1:], shares)
        # Vectors whose products are the weighted means of the branches' cosines.
        weighed = (rows * shares.sqrt()[:, None]).flatten(1)
        assert torch.allclose(found, rerank_distance(weighed[:1], weighed[1:])[0], atol=1e-4)

    @pytest.mark.parametrize("images", [1, 2, 7])
    def test_few_candidates(self, images):
        rows = joined(branches(1 + images))
        distance = rerank(rows[0], rows[1:], torch.ones(1))
        assert distance.shape == (images,)
        assert ((distance >= 0) & (distance <= 1)).all()
