"""Clusters of images that are densely connected by their Jaccard distance."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from pplr_lightning import functional as F
from pplr_lightning.data import Sample
from pplr_lightning.functional.checks import check_counts
from pplr_lightning.labelers.labeler import Labeler
from pplr_lightning.labelers.space import Space


class DBSCAN(Labeler):
    """DBSCAN on the k-reciprocal Jaccard distance, the labels of PPLR and most methods since SpCL.

    `functional.jaccard_distance` and `functional.dbscan`, with the work divided over the ranks.

    Args:
        k1: Nearest neighbours for the Jaccard distance, the image itself included.
        k2: Neighbours over which its sets are averaged, likewise.
        eps: Jaccard distance up to which images are neighbours, in (0, 1].
        min_samples: Neighbours, itself included, that make an image a core of a cluster.

    Raises:
        ValueError: An option is out of range.

    Example:
        >>> features = torch.eye(3).repeat_interleave(6, dim=0)
        >>> DBSCAN(k1=6, k2=2).label(Space.of(features)).tolist()
        [0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 2, 2, 2, 2, 2, 2]
    """

    def __init__(
        self, *, k1: int = 30, k2: int = 6, eps: float = 0.5, min_samples: int = 4
    ) -> None:
        check_counts("labeler", k1=k1, k2=k2, min_samples=min_samples)
        check_eps(eps)
        self.k1 = k1
        self.k2 = k2
        self.eps = eps
        self.min_samples = min_samples

    def check(self, samples: Sequence[Sample]) -> None:
        """Checks that there are as many images as neighbours.

        Raises:
            ValueError: There are not.
        """
        check_counts("labeler", len(samples), k1=self.k1, k2=self.k2)

    def label(self, space: Space) -> Tensor:
        """Clusters all images; every rank does the last, cheap step on the whole sparse graph."""
        distance = space.jaccard(k1=self.k1, k2=self.k2, max_distance=self.eps)
        with space.stages("clustering"):
            return F.dbscan(distance, eps=self.eps, min_samples=self.min_samples)


def check_eps(eps: float) -> None:
    """Checks that 0 < eps <= 1.

    Raises:
        ValueError: It is not.
    """
    if not 0 < eps <= 1:
        raise ValueError(f"labeler.eps={eps}: a Jaccard distance lies in (0, 1]")
