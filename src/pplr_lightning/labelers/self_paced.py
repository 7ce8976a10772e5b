"""DBSCAN clusters that a tighter and a looser clustering confirm; all else is a class of one."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from pplr_lightning import functional as F
from pplr_lightning.labelers.dbscan import DBSCAN
from pplr_lightning.labelers.space import Space


class SelfPaced(DBSCAN):
    """The reliable clusters of SpCL (Ge et al., NeurIPS 2020), by `functional.keep_reliable`.

    DBSCAN at eps, eps - gap and eps + gap, on one Jaccard distance. No image is left out: outliers
    and those that are not kept in their cluster are classes of one. The threshold of independence
    is that of a run's first epoch, which checkpoints hold.

    Args:
        k1: Nearest neighbours for the Jaccard distance, the image itself included.
        k2: Neighbours over which its sets are averaged, likewise.
        eps: Jaccard distance up to which images are neighbours, in (0, 1].
        gap: By how much the eps of the other two clusterings is smaller and larger, above 0.
        min_samples: Neighbours, itself included, that make an image a core of a cluster.
        cannot_link: Two boxes in one frame are two people: where the data say the frame
            (`Sample.frame`), no cluster holds two images that were seen in one frame
            of one camera.

    Raises:
        ValueError: An option is out of range.

    Example:
        >>> features = torch.eye(3).repeat_interleave(6, dim=0)[:13]
        >>> SelfPaced(k1=6, k2=2).label(Space.of(features)).tolist()
        [0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 2]
    """

    def __init__(
        self,
        *,
        k1: int = 30,
        k2: int = 6,
        eps: float = 0.6,
        gap: float = 0.02,
        min_samples: int = 4,
        cannot_link: bool = True,
    ) -> None:
        super().__init__(k1=k1, k2=k2, eps=eps, min_samples=min_samples, cannot_link=cannot_link)
        if not 0 < gap < eps or eps + gap > 1:
            raise ValueError(
                f"labeler.gap={gap}: eps - gap and eps + gap must be Jaccard distances too, in "
                f"(0, 1]; SpCL uses 0.02, here eps={eps}"
            )
        self.gap = gap
        self.threshold: float | None = None

    def label(self, space: Space) -> Tensor:
        """Clusters all images three times; every rank does so on the whole sparse graph."""
        distance = self.distance(space, self.eps + self.gap)
        with space.stages("clustering"):
            labels, tight, loose = (
                self._cluster(space, distance, eps)
                for eps in (self.eps, self.eps - self.gap, self.eps + self.gap)
            )
            classes, self.threshold = F.keep_reliable(
                labels, tight, loose, threshold=self.threshold
            )
        return classes

    def state_dict(self) -> dict[str, Any]:
        """Keeps the threshold."""
        return {"threshold": self.threshold}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Takes it."""
        self.threshold = state_dict["threshold"]
