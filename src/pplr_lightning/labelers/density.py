"""What labelers by DBSCAN share: their eps, given or chosen, and the clustering."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any, cast

from lightning.pytorch.utilities import rank_zero_info
from scipy.sparse import csr_matrix
from torch import Tensor

from pplr_lightning import functional as F
from pplr_lightning.functional.checks import check_counts
from pplr_lightning.labelers.labeler import Labeler
from pplr_lightning.labelers.space import Space


class DensityLabeler(Labeler):
    """DBSCAN on a distance in [0, 1]; of what it is, a subclass says.

    Args:
        eps: Distance up to which images are neighbours, in (0, 1].
        min_samples: Neighbours, itself included, that make an image a core of a cluster.
        rho: Share of the smallest distances whose mean is chosen for eps, in (0, 1); None for none.
        cannot_link: Keep apart what was seen in one frame, where the space has frames.

    Raises:
        ValueError: An option is out of range.
    """

    def __init__(
        self,
        *,
        eps: float,
        min_samples: int,
        rho: float | None = None,
        cannot_link: bool = True,
    ) -> None:
        check_density(eps, min_samples)
        if rho is not None and not 0 < rho < 1:
            raise ValueError(f"labeler.rho={rho}: must lie in (0, 1); MMT uses 0.0016")
        self.eps = eps
        self.min_samples = min_samples
        self.rho = rho
        self.cannot_link = cannot_link
        self.chosen: float | None = None  # eps by rho

    @abstractmethod
    def distance(self, space: Space, max_distance: float) -> csr_matrix:
        """Computes the distances of all images up to a largest one, (N, N), on every rank."""

    def label(self, space: Space) -> Tensor:
        """Clusters all images; every rank does so on the whole sparse graph."""
        eps = self.eps if self.rho is None else self.chosen
        distance = self.distance(space, 1.0 if eps is None else eps)
        with space.stages("clustering"):
            if eps is None:
                eps = self.chosen = F.choose_eps(distance, rho=cast(float, self.rho))
                rank_zero_info(f"labeler.rho={self.rho} chose eps={eps:.4f}")
            return self._cluster(space, distance, eps)

    def _cluster(self, space: Space, distance: csr_matrix, eps: float) -> Tensor:
        groups = space.cannot_link if self.cannot_link else None
        return F.dbscan(distance, eps=eps, min_samples=self.min_samples, cannot_link=groups)

    def chosen_options(self) -> dict[str, float]:
        """Tells the eps that was chosen."""
        return {} if self.chosen is None else {"eps": self.chosen}

    def state_dict(self) -> dict[str, Any]:
        """Keeps the eps that was chosen."""
        return {"chosen": self.chosen}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Takes it."""
        self.chosen = state_dict["chosen"]


def check_density(eps: float, min_samples: int) -> None:
    """Checks what makes a cluster dense.

    Raises:
        ValueError: It is out of range.
    """
    check_counts("labeler", min_samples=min_samples)
    if not 0 < eps <= 1:
        raise ValueError(f"labeler.eps={eps}: a Jaccard distance lies in (0, 1]")
