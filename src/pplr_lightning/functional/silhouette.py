"""How clear labels look without knowing the truth."""

from __future__ import annotations

import torch
from torch import Tensor

from pplr_lightning.functional.checks import check_count, check_features, check_shape
from pplr_lightning.functional.clustering import sum_rows
from pplr_lightning.functional.sharding import Share

BLOCK = 4096  # images that are compared with all clusters at once


def label_score(features: Tensor, labels: Tensor, *, most: int | None = None) -> float:
    """Score clusters by how clearly each image lies in its own, and how much it is told thereby.

    ``S = 1/N sum_i max(0, s_i) log(N / n_i)`` over the clustered images i, with s_i of
    `simplified_silhouette` and n_i the size of the image's cluster. The silhouette alone likes one
    large cluster of all that is hard to tell apart; the entropy of the sizes, which S is where all
    s_i are 1, likes many small clusters whatever is in them.

    It proves nothing: clusters of backgrounds are as clear as those of people.

    Args:
        features: L2-normalised rows, (N, D).
        labels: Clusters 0 to K - 1 without gaps, -1 for outliers, (N,) int64.
        most: Images that are looked at, evenly spread over the N; None for all.

    Returns:
        From 0 to log N; comparable for the same features alone. 0 with fewer than two clusters.

    Raises:
        ValueError: A feature is not finite or not normalised, or the shapes do not fit.

    Example:
        >>> features = torch.eye(3).repeat_interleave(4, dim=0)
        >>> three, two = torch.arange(12) // 4, (torch.arange(12) // 4).clamp(max=1)
        >>> label_score(features, three) > label_score(features, two)
        True
    """
    _check(features, labels)
    if most is not None:
        check_count("most", most)
    return label_score_rows(features, labels, Share(len(labels)), most=most)


def label_score_rows(
    features: Tensor, labels: Tensor, share: Share, *, most: int | None = None
) -> float:
    """Compute `label_score` of the images of all processes, on each of them.

    Args:
        features: This process's rows, (n, D).
        labels: Of all images, (N,).
        share: The rows of this process among the N.
        most: As there.
    """
    images, labels = share.total, labels.cpu()
    every = -(-images // (most or images))
    rows = torch.arange(-share.start % every, share.stop - share.start, every)
    own = labels[share.start : share.stop]
    silhouettes = _silhouettes(features, own, int(labels.max()) + 1, rows, share)
    sizes = torch.bincount(labels + 1).double()
    sizes[0] = images  # outliers tell nothing
    told = torch.log(images / sizes)[own[rows] + 1]
    seen = (silhouettes.clamp(min=0).double().cpu() * told).sum()
    total, count = share.sum(torch.stack([seen, told.new_tensor(len(rows))]))
    return float(total / count)


def simplified_silhouette(features: Tensor, labels: Tensor) -> Tensor:
    """Tell how much nearer each image is to its own cluster's mean than to the next one's.

    ``s_i = (b_i - a_i) / max(a_i, b_i)``, with a_i the cosine distance to the mean of the *other*
    images of its cluster and b_i the least to the mean of another cluster: the silhouette
    (Rousseeuw, 1987) with means for images, in time N x K.

    Args:
        features: L2-normalised rows, (N, D).
        labels: Clusters 0 to K - 1 without gaps, -1 for outliers, (N,) int64.

    Returns:
        In [-1, 1], (N,) float32 on the device of ``features``; 0 for outliers, and with fewer than
        two clusters.

    Raises:
        ValueError: A feature is not finite or not normalised, or the shapes do not fit.
    """
    _check(features, labels)
    rows, share = torch.arange(len(features)), Share(len(features))
    return _silhouettes(features, labels, int(labels.max()) + 1, rows, share)


def cluster_doubt(silhouettes: Tensor, labels: Tensor) -> Tensor:
    """Tell in which clusters it is most worth looking for errors.

    ``sum_i (1 - s_i)`` over the images of a cluster: many doubtful images count more than few.

    Args:
        silhouettes: As of `simplified_silhouette`, (N,).
        labels: Clusters 0 to K - 1, -1 for outliers, (N,) int64.

    Returns:
        0 or above, (K,) float64.

    Raises:
        ValueError: There is not a silhouette for each label.

    Example:
        >>> cluster_doubt(torch.tensor([0.5, 0.5, 1.0, 0.0]), torch.tensor([0, 0, 1, -1]))
        tensor([1., 0.], dtype=torch.float64)
    """
    check_shape("silhouettes", silhouettes, (len(labels),))
    kept = labels >= 0
    doubt = torch.zeros(int(labels.max()) + 1, dtype=torch.float64, device=labels.device)
    return doubt.index_add_(0, labels[kept], 1 - silhouettes[kept].double())


@torch.no_grad()
def _silhouettes(
    features: Tensor, labels: Tensor, count: int, rows: Tensor, share: Share
) -> Tensor:
    """Compute `simplified_silhouette` of some of this process's rows, given their numbers, (m,)."""
    labels, rows = labels.to(features.device), rows.to(features.device)
    silhouettes = features.new_zeros(len(rows))
    if count < 2:
        return silhouettes
    sums = sum_rows(features, labels, count, share).to(features.dtype)
    means = torch.nn.functional.normalize(sums, dim=1)
    clustered = (labels[rows] >= 0).nonzero()[:, 0]
    for places in clustered.split(BLOCK):
        image, cluster = features[rows[places]], labels[rows[places]]
        others = torch.nn.functional.normalize(sums[cluster] - image, dim=1)
        within = 1 - (image * others).sum(dim=1)
        cosines = (image @ means.T).scatter_(1, cluster[:, None], -1)
        between = 1 - cosines.amax(dim=1)
        largest = torch.maximum(within, between).clamp(min=1e-6)  # of rounding where all are equal
        silhouettes[places] = (between - within) / largest
    return silhouettes


def _check(features: Tensor, labels: Tensor) -> None:
    check_features(features)
    check_shape("labels", labels, (len(features),))
