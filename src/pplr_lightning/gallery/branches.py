"""The branches that an image's vector is joined of: weighed, compared, re-ranked by."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import normalize

from pplr_lightning.evaluation.extraction import FeatureKind
from pplr_lightning.functional.reranking import K1, K2, rerank_distance

CANDIDATES = 200  # images, the most similar first, that are re-ranked


def branch_shares(weights: Sequence[float], features: FeatureKind, dimension: int) -> Tensor:
    """Makes weights of the branches sum to 1.

    Args:
        weights: Of the global feature (where `features` has it) and of each part, top to bottom.
        features: What the vectors hold, as of `join_features`.
        dimension: Of the vectors.

    Returns:
        One for each of the B branches, in [0, 1], (B,).

    Raises:
        ValueError: There is one branch only, they are not as many as branches, one is negative or
            not finite, or all are 0.
    """
    given = [float(weight) for weight in weights]
    if features == "global":
        raise ValueError(
            f"weights {given}: the gallery's vectors hold the global feature alone, there is "
            "nothing to weigh; embed its images with --features both"
        )
    least = {"both": 2, "parts": 1}[features]
    if len(given) < least or dimension % len(given):
        has = "the global feature and of each part" if features == "both" else "each part"
        raise ValueError(
            f"{len(given)} weights {given} do not fit vectors of {dimension} dimensions: give one "
            f"of {has}"
        )
    if not all(math.isfinite(weight) and weight >= 0 for weight in given) or not sum(given):
        raise ValueError(f"weights {given}: give finite ones of 0 or more, not all of them 0")
    return torch.tensor(given, dtype=torch.float64).div(math.fsum(given)).float()


def scale_branches(vectors: Tensor, factors: Tensor) -> Tensor:
    """Multiplies each branch of vectors (N, B·D) by its factor, (B,)."""
    branches = vectors.reshape(len(vectors), len(factors), -1)
    return (branches * factors[:, None]).flatten(1)


def branch_similarity(query: Tensor, vectors: Tensor, branches: int) -> Tensor:
    """Compares a query with images, branch by branch.

    Args:
        query: L2-normalised, as of `join_features`, (B·D,).
        vectors: Likewise, (N, B·D).
        branches: B.

    Returns:
        Cosines, whose mean is the cosine of the whole vectors, (N, B).
    """
    products = (query * vectors).reshape(len(vectors), branches, -1)
    return products.sum(dim=2) * branches


def rerank(query: Tensor, candidates: Tensor, shares: Tensor) -> Tensor:
    """Re-ranks what a query has found by the neighbours that they share among themselves.

    Neighbours beyond the candidates are not looked at, so that it takes no pass over the gallery.
    k1 and k2 are the published ones, or as many images as there are.

    Args:
        query: L2-normalised, (D,).
        candidates: L2-normalised, or what a compressed index keeps of such vectors, (N, D).
        shares: Of the branches, as of `branch_shares`; of one alone where they are equal.

    Returns:
        Distance in [0, 1], (N,).
    """
    features = torch.cat([query[None], candidates])
    # So scaled, their cosine is the weighted mean of the branches' cosines.
    features = normalize(scale_branches(features, (shares * len(shares)).sqrt()), dim=1)
    images = len(candidates)
    k1, k2 = min(K1, images), min(K2, 1 + images)
    return rerank_distance(features[:1], features[1:], k1=k1, k2=k2)[0]
