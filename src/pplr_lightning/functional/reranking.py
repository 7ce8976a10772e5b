"""k-reciprocal re-ranking of a gallery at test time."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from pplr_lightning.functional.checks import check_count, check_features
from pplr_lightning.functional.engines import similarity_chunks
from pplr_lightning.functional.jaccard import (
    average_nearest,
    entry_similarity,
    expand_reciprocal,
    minima_sums,
    normalize_exponentials,
)
from pplr_lightning.functional.neighbors import nearest_neighbors


@torch.no_grad()
def rerank_distance(
    query_features: Tensor,
    gallery_features: Tensor,
    *,
    k1: int = 20,
    k2: int = 6,
    lambda_: float = 0.3,
) -> Tensor:
    """Re-rank the gallery by the neighbours that it shares with each query.

    (1 - lambda)·Jaccard + lambda·d, Zhong et al., "Re-ranking Person Re-identification with
    k-reciprocal Encoding", CVPR 2017. As in the authors' code, d is the *square* of the squared
    Euclidean distance, divided by the query's largest one, and the neighbour lists have k1 + 1
    columns.

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
    if not len(query_features) or not len(gallery_features):
        raise ValueError(
            f"re-ranking needs queries and a gallery, got {len(query_features)} and "
            f"{len(gallery_features)} images; check the data set"
        )
    features = torch.cat([query_features, gallery_features.to(query_features.device)]).float()
    queries = len(query_features)
    check_count("k1", k1, len(features) - 1)
    check_count("k2", k2, len(features))
    if not 0 <= lambda_ <= 1:
        raise ValueError(f"lambda_ must be in [0, 1], got {lambda_}; the paper uses 0.3")

    lists = nearest_neighbors(features, max(k1 + 1, k2)).cpu().numpy().astype(np.int32)
    encoding = expand_reciprocal(lists[:, : k1 + 1], half=round(k1 / 2) + 1)
    largest = _largest_distance(features)
    squared = (2 - 2 * entry_similarity(features.cpu(), encoding)) ** 2
    scale = np.repeat(largest.double().cpu().numpy(), np.diff(encoding.indptr))
    encoding.data[:] = -squared / scale
    normalize_exponentials(encoding)
    average = average_nearest(encoding, lists, k2)
    shared = minima_sums(average[:queries], average[queries:]).tocoo()

    original = torch.cat(list(similarity_chunks(features[:queries], features[queries:])))
    original = (2 - 2 * original).square() / largest[:queries, None]
    # Jaccard is 1 - s / (2 - s), so 1 wherever nothing is shared.
    result = (1 - lambda_) + lambda_ * original
    row, column = torch.from_numpy(shared.row).long(), torch.from_numpy(shared.col).long()
    gain = torch.from_numpy((1 - lambda_) * shared.data / (2 - shared.data))
    result[row.to(result.device), column.to(result.device)] -= gain.to(result)
    return result


def _largest_distance(features: Tensor) -> Tensor:
    """Return each row's largest (2 - 2cos)^2, (N,), at least what float32 makes of 0."""
    least = torch.cat([chunk.amin(dim=1) for chunk in similarity_chunks(features, features)])
    return (2 - 2 * least).square().clamp(min=1e-10)
