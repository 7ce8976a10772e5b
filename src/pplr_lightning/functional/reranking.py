"""k-reciprocal re-ranking of a gallery at test time."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from pplr_lightning.functional.checks import check_count, check_features, check_fraction
from pplr_lightning.functional.engines import open_finder, similarity_chunks
from pplr_lightning.functional.jaccard import (
    average_nearest,
    entry_similarity,
    expand_reciprocal,
    minima_sums,
    normalize_exponentials,
)
from pplr_lightning.functional.neighbor_lists import MARGIN, similarity_of
from pplr_lightning.functional.neighbors import search
from pplr_lightning.functional.sharding import Share

K1, K2, LAMBDA = 20, 6, 0.3  # as published
CHUNK = 4096  # images whose farthest are searched at a time


@torch.no_grad()
def rerank_distance(
    query_features: Tensor,
    gallery_features: Tensor,
    *,
    k1: int = K1,
    k2: int = K2,
    lambda_: float = LAMBDA,
) -> Tensor:
    """Re-rank the gallery by the neighbours that it shares with each query.

    (1 - lambda)·Jaccard + lambda·d, Zhong et al., "Re-ranking Person Re-identification with
    k-reciprocal Encoding", CVPR 2017. As in the authors' code, d is the *square* of the squared
    Euclidean distance, divided by the query's largest one, and the neighbour lists have k1 + 1
    columns.

    Memory is that of the result, Q·G floats, and some distances at a time. `ReIDRetrieval`, which
    gives the metrics alone, never holds the result, either.

    Args:
        query_features: L2-normalised rows, (Q, D).
        gallery_features: L2-normalised rows, (G, D).
        k1: Neighbours that are tested for reciprocity, the image itself **not** included.
        k2: Neighbours whose encodings are averaged, the image itself included.
        lambda_: Weight of the original distance, in [0, 1].

    Returns:
        Distance in [0, 1], (Q, G) float32, on the device of ``query_features``.

    Raises:
        ValueError: There are no queries or no gallery, features are not 2-D, not finite or not
            normalised, ``k1`` or ``k2`` is out of range for Q + G images, or ``lambda_`` is out of
            range.
    """
    check_features(query_features, "query_features")
    check_features(gallery_features, "gallery_features")
    queries, gallery = len(query_features), len(gallery_features)
    if not queries or not gallery:
        raise ValueError(
            f"re-ranking needs queries and a gallery, got {queries} and {gallery} images; check "
            "the data set"
        )
    features = torch.cat([query_features, gallery_features.to(query_features.device)]).float()
    found = search_both_ends(features, k1=k1, k2=k2)
    reranking = Reranking(features, *found, queries=queries, k1=k1, k2=k2, lambda_=lambda_)
    result = features.new_empty(queries, gallery)
    start = 0
    for chunk in similarity_chunks(features[:queries], features[queries:]):
        rows = slice(start, start + len(chunk))
        torch.mul(chunk, -2, out=result[rows]).add_(2)
        reranking.apply_(result[rows], rows)
        start = rows.stop
    return result


def search_both_ends(
    features: Tensor, rows: slice | None = None, *, k1: int = K1, k2: int = K2
) -> tuple[Tensor, Tensor]:
    """Find the nearest of all images and the similarity of the farthest, for some images.

    Both are products in float64 among what an engine has found and some to spare, so that they
    depend neither on the engine nor on the other images of ``rows``.

    Args:
        features: L2-normalised rows, (N, D).
        rows: Images that are searched for, n of them; None for all.
        k1: As for `rerank_distance`.
        k2: As for `rerank_distance`.

    Returns:
        On the CPU: indices of the max(k1 + 1, k2) nearest, the image itself included, (n, k) int32,
        and the dot product with the farthest, (n,) float64.

    Raises:
        ValueError: ``features`` are not 2-D, not finite or not normalised, or ``k1`` or ``k2`` is
            out of range for N images.
    """
    check_features(features)
    images = len(features)
    check_count("k1", k1, images - 1)
    check_count("k2", k2, images)
    features = features.detach().float().contiguous()
    # torch, on the GPU where there is one: on the CPU, too, it is faster here than FAISS.
    some = None if rows is None else torch.arange(images)[rows]
    nearest = search(features, max(k1 + 1, k2), Share(images), backend="torch", only=some)
    find = open_finder("torch", features)
    products = [torch.empty(0, dtype=torch.float64)]
    for chunk in features[rows or slice(None)].split(CHUNK):
        found = find(-chunk, min(1 + MARGIN, images))
        products.append(similarity_of(chunk, features, found).amin(dim=1).cpu())
    return nearest.int(), torch.cat(products)


class Reranking:
    """What queries share with a gallery; re-ranks the distances of some queries at a time.

    Memory grows with the images times those that share neighbours with each, not with Q x G.

    Args:
        features: L2-normalised rows, the queries' first, (Q + G, D).
        nearest: What `search_both_ends` found for all of them, on the CPU, (Q + G, k).
        farthest: Likewise, (Q + G,).
        queries: Number of queries, Q.
        rows: Queries that will be re-ranked; None for all.
        k1: As for `rerank_distance`.
        k2: As for `rerank_distance`.
        lambda_: As for `rerank_distance`.

    Raises:
        ValueError: ``lambda_`` is out of range.
    """

    def __init__(
        self,
        features: Tensor,
        nearest: Tensor,
        farthest: Tensor,
        *,
        queries: int,
        rows: slice | None = None,
        k1: int = K1,
        k2: int = K2,
        lambda_: float = LAMBDA,
    ) -> None:
        check_fraction("lambda_", lambda_, "the paper uses 0.3")
        self.lambda_ = lambda_
        lists = nearest.numpy()
        images = range(len(lists))
        encoding = expand_reciprocal(lists[:, : k1 + 1], round(k1 / 2) + 1, images)
        # At least what float32 makes of 0.
        largest = (2 - 2 * farthest).square().clamp(min=1e-10)
        squared = (2 - 2 * entry_similarity(features, encoding)) ** 2
        encoding.data[:] = -squared / np.repeat(largest.numpy(), np.diff(encoding.indptr))
        normalize_exponentials(encoding)
        average = average_nearest(encoding, lists, k2, images)
        self._first, last, _ = (rows or slice(None)).indices(queries)
        self._largest = largest[self._first : last]
        self._shared = minima_sums(average[self._first : last], average[queries:])

    def apply_(self, distance: Tensor, rows: slice) -> None:
        """Turn squared Euclidean distances into re-ranked ones, in [0, 1], in place.

        Args:
            distance: Of these queries to the whole gallery, (q, G).
            rows: The queries, all of them among those announced.
        """
        some = slice(rows.start - self._first, rows.stop - self._first)
        scale = (self.lambda_ / self._largest[some]).to(distance)
        distance.square_().mul_(scale[:, None]).add_(1 - self.lambda_)
        # Jaccard is 1 - s / (2 - s), so 1 wherever nothing is shared.
        shared = self._shared[some].tocoo()
        gain = torch.from_numpy((1 - self.lambda_) * shared.data / (2 - shared.data)).to(distance)
        row, column = (
            torch.from_numpy(part).long().to(distance.device) for part in (shared.row, shared.col)
        )
        distance[row, column] -= gain
