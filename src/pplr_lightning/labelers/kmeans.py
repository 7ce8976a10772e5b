"""A given number of clusters, each the images nearest to its mean."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from pplr_lightning import functional as F
from pplr_lightning.data import Sample
from pplr_lightning.functional.checks import check_counts
from pplr_lightning.labelers.labeler import Labeler
from pplr_lightning.labelers.space import Space


class KMeans(Labeler):
    """k-means of the unit features, as in the first versions of MMT; there are no outliers.

    The first rank clusters the features of all, by FAISS where it is installed, and tells the
    others: how a sum is rounded may depend on the machine, the labels of a run must not.

    Args:
        num_clusters: K, 2 or more; MMT took 500 to 900 for Market-1501.
        seed: Of the start, 0 or above.
        iterations: The most; it ends where nothing moves any more.

    Raises:
        ValueError: An option is out of range.

    Example:
        >>> features = torch.eye(3).repeat_interleave(4, dim=0)
        >>> len(KMeans(num_clusters=3).label(Space.of(features)).unique())
        3
    """

    def __init__(self, *, num_clusters: int = 500, seed: int = 0, iterations: int = 300) -> None:
        check_counts("labeler", least=2, num_clusters=num_clusters)
        check_counts("labeler", least=0, seed=seed)
        check_counts("labeler", iterations=iterations)
        self.num_clusters = num_clusters
        self.seed = seed
        self.iterations = iterations

    def check(self, samples: Sequence[Sample]) -> None:
        """Checks that there are as many images as clusters.

        Raises:
            ValueError: There are not.
        """
        check_counts("labeler", len(samples), num_clusters=self.num_clusters)

    def label(self, space: Space) -> Tensor:
        """Clusters all images."""
        share, features = space.share, space.features
        if not share.alone:
            features = share.gather(features)
        with space.stages("clustering"):
            found = torch.empty(0, dtype=torch.int64)
            if share.rank == 0:
                found = F.kmeans(
                    features,
                    num_clusters=self.num_clusters,
                    seed=self.seed,
                    iterations=self.iterations,
                )
            return share.gather(found)  # of the one rank that has any
