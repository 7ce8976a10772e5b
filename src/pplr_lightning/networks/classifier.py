"""A linear classifier whose rows are reset from the cluster centroids every epoch."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class ClusterClassifier(nn.Module):
    """Linear layer without bias, of which the first `num_clusters` rows are in use.

    The number of clusters changes from epoch to epoch while optimisers want a parameter of fixed
    shape, so there are `max_clusters` rows. They are overwritten in place: the optimiser's moments
    stay, as with the authors.

    Args:
        num_features: Width D of a feature.
        max_clusters: Rows.
    """

    def __init__(self, num_features: int, max_clusters: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(max_clusters, num_features))
        self.num_clusters = max_clusters  # a plain number: no host synchronisation in the step
        nn.init.normal_(self.weight, std=0.001)

    def forward(self, features: Tensor) -> Tensor:
        """Computes the logits (B, C) of features (B, D) for the C clusters in use."""
        return F.linear(features, self.weight[: self.num_clusters])

    @torch.no_grad()
    def reset(self, centroids: Tensor) -> None:
        """Copies the centroids (C, D) into the first C rows.

        Raises:
            ValueError: There are more centroids than rows.
        """
        if len(centroids) > len(self.weight):
            raise ValueError(
                f"{len(centroids)} clusters, but the classifier has max_clusters="
                f"{len(self.weight)} rows: raise max_clusters"
            )
        self.num_clusters = len(centroids)
        self.weight[: self.num_clusters].copy_(centroids)

    def get_extra_state(self) -> dict[str, Any]:
        """Saves the number of rows in use beside the weights."""
        return {"num_clusters": self.num_clusters}

    def set_extra_state(self, state: dict[str, Any]) -> None:
        """Restores it."""
        self.num_clusters = state["num_clusters"]
