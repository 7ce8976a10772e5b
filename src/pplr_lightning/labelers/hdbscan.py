"""Clusters of any density, of which no distance has to be chosen."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from pplr_lightning import functional as F
from pplr_lightning.data import Sample
from pplr_lightning.functional.checks import check_counts
from pplr_lightning.labelers.labeler import Labeler
from pplr_lightning.labelers.space import Space


class HDBSCAN(Labeler):
    """HDBSCAN (Campello et al., PAKDD 2013) on the k-reciprocal Jaccard distance.

    In place of DBSCAN's eps it finds clusters at every distance and keeps the most stable.

    Args:
        k1: Nearest neighbours for the Jaccard distance, the image itself included.
        k2: Neighbours over which its sets are averaged, likewise.
        min_cluster_size: Images of the smallest cluster, 2 or more.
        min_samples: Neighbours, itself included, whose farthest tells how dense it is around an
            image; `min_cluster_size` when None.

    Raises:
        ValueError: An option is out of range.

    Example:
        >>> features = torch.nn.functional.normalize(
        ...     torch.eye(3).repeat_interleave(6, dim=0) + 0.01 * torch.rand(18, 3), dim=1
        ... )
        >>> HDBSCAN(k1=6, k2=2).label(Space.of(features)).unique().tolist()
        [0, 1, 2]
    """

    def __init__(
        self,
        *,
        k1: int = 30,
        k2: int = 6,
        min_cluster_size: int = 4,
        min_samples: int | None = None,
    ) -> None:
        check_counts("labeler", k1=k1, k2=k2, min_samples=1 if min_samples is None else min_samples)
        check_counts("labeler", least=2, min_cluster_size=min_cluster_size)
        self.k1 = k1
        self.k2 = k2
        self.min_cluster_size = min_cluster_size
        self.min_samples = min_samples

    def check(self, samples: Sequence[Sample]) -> None:
        """Checks that there are as many images as neighbours.

        Raises:
            ValueError: There are not.
        """
        check_counts("labeler", len(samples), k1=self.k1, k2=self.k2)

    def label(self, space: Space) -> Tensor:
        """Clusters all images; every rank does it on the whole sparse graph."""
        distance = space.jaccard(k1=self.k1, k2=self.k2)
        with space.stages("clustering"):
            return F.hdbscan(
                distance, min_cluster_size=self.min_cluster_size, min_samples=self.min_samples
            )
