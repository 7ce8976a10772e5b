"""What becomes of clusters: how many are trained on, and the means of each."""

from __future__ import annotations

import torch
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor

from pplr_lightning.functional.clustering import centroid_rows
from pplr_lightning.functional.sharding import Share


def fit_rows(labels: Tensor, max_clusters: int | None) -> Tensor:
    """Checks the number of clusters and keeps the largest that there are classifier rows for.

    Args:
        labels: Clusters 0 to K - 1, -1 for outliers, (N,).
        max_clusters: Classifier rows; None keeps all clusters.

    Returns:
        Labels without gaps; images of clusters that are left out become outliers, (N,).

    Raises:
        ValueError: There are fewer than two clusters.
    """
    sizes = torch.bincount(labels[labels >= 0])
    if len(sizes) < 2:
        found, wider = (
            ("a single cluster", "lower pseudo_labels.eps or k1")
            if len(sizes)
            else ("no cluster", "raise pseudo_labels.eps or lower min_samples")
        )
        raise ValueError(
            f"{found} in {len(labels)} images, {int((labels < 0).sum())} of them outliers: "
            f"{wider}, or start from better features (model.pretrained, model.warm_start)"
        )
    if max_clusters is None or len(sizes) <= max_clusters:
        return labels
    rank_zero_warn(
        f"{len(sizes)} clusters, but model.max_clusters={max_clusters}: the smallest "
        f"{len(sizes) - max_clusters} are left out of this epoch; raise max_clusters"
    )
    kept = sizes.argsort(descending=True, stable=True)[:max_clusters].sort().values
    number = torch.full((len(sizes) + 1,), -1)
    number[kept] = torch.arange(max_clusters)
    return number[labels]  # -1 picks the last entry, which is -1


def mean_features(
    features: Tensor, part_features: Tensor, labels: Tensor, share: Share
) -> tuple[Tensor, Tensor]:
    """Averages each cluster in each space.

    Args:
        features: This rank's rows, (n, D).
        part_features: Likewise, (n, D, P).
        labels: Clusters of all images, -1 for outliers, (N,).
        share: The rows of this rank among the N.

    Returns:
        L2-normalised means on the CPU, (K, D) and (K, D, P).
    """
    own, clusters = labels[share.start : share.stop].to(features.device), int(labels.max()) + 1
    whole, *parts = (
        centroid_rows(rows, own, clusters, share) for rows in (features, *part_features.unbind(2))
    )
    return whole.cpu(), torch.stack(parts, dim=2).cpu()


def number_identities(person_ids: Tensor) -> Tensor:
    """Numbers the known identities (N,) from 0; an unknown one (-1) stays -1."""
    labels = person_ids.clone()
    known = person_ids >= 0
    labels[known] = torch.unique(person_ids[known], return_inverse=True)[1]
    return labels
