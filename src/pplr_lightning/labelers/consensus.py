"""Labels refined by those of the epoch before."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from pplr_lightning.functional.clustering_consensus import cluster_mapping, propagate_labels
from pplr_lightning.labelers.space import Space


class Consensus:
    """Soft labels by the consensus of two epochs' clusterings (RLCC, Zhang et al., CVPR 2021).

    It comes after any labeler and before any method whose losses take distributions. In each epoch
    but the first an image's label is

        alpha onehot(y) + (1 - alpha) soft,

    with y its class and soft as of `functional.propagate_labels`: what it was a clustering ago, and
    what became of that. As in the authors' code, the first time soft is of the predictions alone
    (alpha = 0 there), and soft labels are not themselves carried on. What was of classes of which
    nothing is left is given to y.

    Args:
        alpha: Share of the class in the label, and of the class before in soft, in [0, 1].
        beta: Share in soft of what became of the class before, whatever the image looks like now,
            in [0, 1].
        scale: Inverse temperature of the predictions, above 0.

    Raises:
        ValueError: An option is out of range.

    Example:
        >>> import torch
        >>> consensus, space = Consensus(alpha=0.75), Space.of(torch.eye(2).repeat(2, 1))
        >>> consensus.refine(space, torch.tensor([0, 1, 0, 1]))
        {}
        >>> consensus.refine(space, torch.tensor([1, 0, 1, 0]))["soft_labels"][0].round(decimals=4)
        tensor([0., 1.])
    """

    def __init__(self, *, alpha: float = 0.9, beta: float = 0.0, scale: float = 30.0) -> None:
        for name, value in (("alpha", alpha), ("beta", beta)):
            if not 0 <= value <= 1:
                raise ValueError(f"refinement.{name}={value}: must lie in [0, 1]")
        if not 0 < scale < float("inf"):
            raise ValueError(f"refinement.scale={scale}: must be finite and above 0")
        self.alpha = alpha
        self.beta = beta
        self.scale = scale
        self._before: tuple[Tensor, Tensor] | None = None  # classes and their centroids
        self._epochs = 0

    def refine(self, space: Space, classes: Tensor) -> dict[str, Tensor]:
        """Refines an epoch's classes; every rank calls it.

        Args:
            space: The embedded training images.
            classes: Class of each image, 0 to K - 1, -1 for none, (N,).

        Returns:
            A column for the batches, the same on every rank: `soft_labels`, (N, K), which takes
            4 N K bytes; none in the first epoch.
        """
        columns = {}
        if self._before is not None:
            with space.stages("refinement"):
                columns["soft_labels"] = self._carry(space, classes, *self._before)
        self._before = (classes, space.centroids(classes)[0])
        self._epochs += 1
        return columns

    def _carry(self, space: Space, classes: Tensor, before: Tensor, centroids: Tensor) -> Tensor:
        own = slice(space.share.start, space.share.stop)
        soft = propagate_labels(
            space.features,
            centroids,
            before[own],
            cluster_mapping(before, classes),
            scale=self.scale,
            alpha=self.alpha if self._epochs > 1 else 0.0,
            beta=self.beta,
        )
        kept = self.alpha + (1 - self.alpha) * (1 - soft.sum(dim=1, keepdim=True))
        soft *= 1 - self.alpha
        soft.scatter_add_(1, classes[own].clamp(min=0)[:, None], kept)
        return space.share.gather(soft)

    def state_dict(self) -> dict[str, Any]:
        """Keeps the last classes and their centroids."""
        return {"before": self._before, "epochs": self._epochs}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Takes them."""
        self._before, self._epochs = state_dict["before"], state_dict["epochs"]
