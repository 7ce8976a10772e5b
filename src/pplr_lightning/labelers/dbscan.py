"""Clusters of images that are densely connected by their Jaccard distance."""

from __future__ import annotations

from collections.abc import Sequence

from lightning.pytorch.utilities import rank_zero_warn
from scipy.sparse import csr_matrix

from pplr_lightning.data import Sample
from pplr_lightning.functional.checks import check_counts
from pplr_lightning.labelers.density import DensityLabeler
from pplr_lightning.labelers.space import Space

FEWEST_PEOPLE = 25  # that images are expected to be of


class DBSCAN(DensityLabeler):
    """DBSCAN on the k-reciprocal Jaccard distance, the labels of PPLR and most methods since SpCL.

    `functional.jaccard_distance` and `functional.dbscan`, with the work divided over the ranks.

    Args:
        k1: Nearest neighbours for the Jaccard distance, the image itself included.
        k2: Neighbours over which its sets are averaged, likewise.
        eps: Jaccard distance up to which images are neighbours, in (0, 1].
        min_samples: Neighbours, itself included, that make an image a core of a cluster.
        rho: Share of the smallest distances of all pairs whose mean, in the first epoch, is taken
            for eps in all epochs (`functional.choose_eps`), in (0, 1), as MMT and GCL choose it;
            None takes `eps`.
        cannot_link: Two boxes in one frame are two people: where the data say the frame
            (`Sample.frame`), no cluster holds two images, or tracklets, that were seen in one frame
            of one camera.

    Raises:
        ValueError: An option is out of range.

    Example:
        >>> features = torch.eye(3).repeat_interleave(6, dim=0)
        >>> DBSCAN(k1=6, k2=2).label(Space.of(features)).tolist()
        [0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 2, 2, 2, 2, 2, 2]
    """

    def __init__(
        self,
        *,
        k1: int = 30,
        k2: int = 6,
        eps: float = 0.5,
        min_samples: int = 4,
        rho: float | None = None,
        cannot_link: bool = True,
    ) -> None:
        check_counts("labeler", k1=k1, k2=k2)
        super().__init__(eps=eps, min_samples=min_samples, rho=rho, cannot_link=cannot_link)
        self.k1 = k1
        self.k2 = k2

    def check(self, samples: Sequence[Sample]) -> None:
        """Checks that there are as many images as neighbours; warns of a k1 that is large for them.

        Raises:
            ValueError: There are not.
        """
        images = len(samples)
        check_counts("labeler", images, k1=self.k1, k2=self.k2)
        if self.k1 * FEWEST_PEOPLE > images:
            rank_zero_warn(
                f"labeler.k1={self.k1} suits people of about {self.k1} images each, of whom "
                f"{images} images show {images // self.k1}; if yours have fewer, clusters will be "
                "of backgrounds: lower k1 (`pplr labels` shows what each setting finds)"
            )

    def distance(self, space: Space, max_distance: float) -> csr_matrix:
        """Computes the Jaccard distance."""
        return space.jaccard(k1=self.k1, k2=self.k2, max_distance=max_distance)
