"""Images that find each other are of one class."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from pplr_lightning import functional as F
from pplr_lightning.data import Sample
from pplr_lightning.functional.checks import check_count
from pplr_lightning.labelers.labeler import Labeler
from pplr_lightning.labelers.space import Space


class NeighborComponents(Labeler):
    """Connected components of the graph of mutual nearest neighbours.

    The plainest k-NN labels: two images are of one class when each is among the k nearest of the
    other, and so are those that a chain of such pairs connects. An image that nobody finds is an
    outlier. Chains grow fast with k: above 3 or 4 one class may take in most images.

    Args:
        k: Nearest neighbours, the image itself left out.

    Raises:
        ValueError: `k` is below 1.

    Example:
        >>> features = torch.eye(2).repeat_interleave(2, dim=0)
        >>> NeighborComponents(k=1).label(Space.of(features)).tolist()
        [0, 0, 1, 1]
    """

    def __init__(self, *, k: int = 2) -> None:
        check_count("labeler.k", k)
        self.k = k

    def check(self, samples: Sequence[Sample]) -> None:
        """Checks that there are as many other images as neighbours.

        Raises:
            ValueError: There are not.
        """
        check_count("labeler.k", self.k, len(samples) - 1)

    def label(self, space: Space) -> Tensor:
        """Finds the components of all images; every rank does so in the lists of all."""
        neighbors = space.share.gather(space.neighbors(self.k + 1))
        with space.stages("clustering"):
            return F.neighbor_components(neighbors, k=self.k)
