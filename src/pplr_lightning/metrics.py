"""Retrieval metrics as a torchmetrics `Metric`, and the quality of labels."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from sklearn.metrics import adjusted_rand_score
from sklearn.metrics.cluster import pair_confusion_matrix
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities import dim_zero_cat

from pplr_lightning.functional import retrieval_metrics


class ReIDRetrieval(Metric):
    """mAP, mINP and CMC of query-to-gallery retrieval, over any number of processes.

    Images that reach it twice (samplers pad so that ranks have equally many) are counted once, and
    they are put in the order of their index: the value is that of one process.

    Args:
        topk: Ranks of the CMC to report.
    """

    full_state_update = False
    higher_is_better = True
    is_differentiable = False

    features: list[Tensor]
    person_ids: list[Tensor]
    camera_ids: list[Tensor]
    is_query: list[Tensor]
    indices: list[Tensor]
    _states = ("features", "person_ids", "camera_ids", "is_query", "indices")

    def __init__(self, *, topk: tuple[int, ...] = (1, 5, 10), **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.topk = topk
        for name in self._states:
            self.add_state(name, default=[], dist_reduce_fx="cat")

    def update(
        self,
        features: Tensor,
        person_ids: Tensor,
        camera_ids: Tensor,
        is_query: Tensor,
        indices: Tensor,
    ) -> None:
        """Takes L2-normalised features (B, D) and each image's ids, role and index, all (B,)."""
        values = (features, person_ids, camera_ids, is_query, indices)
        for name, value in zip(self._states, values, strict=True):
            getattr(self, name).append(value)

    def compute(self) -> dict[str, float]:
        """Computes `mAP`, `mINP` and `rank-k`, each in [0, 1].

        Raises:
            ValueError: No query has a match in the gallery.
        """
        features, persons, cameras, is_query, indices = (
            dim_zero_cat(getattr(self, name)) for name in self._states
        )
        order = _first_of_each(indices)
        features, persons, cameras = features[order], persons[order], cameras[order]
        query = is_query[order].bool()
        # ||a - b||^2 of unit vectors
        distance = (features[query] @ features[~query].T).mul_(-2).add_(2)
        return retrieval_metrics(
            distance,
            persons[query],
            persons[~query],
            cameras[query],
            cameras[~query],
            topk=self.topk,
        )


def _first_of_each(indices: Tensor) -> Tensor:
    """Positions of the distinct indices, in the order of the indices."""
    order = torch.argsort(indices, stable=True)
    ordered = indices[order]
    first = torch.ones_like(ordered, dtype=torch.bool)
    first[1:] = ordered[1:] != ordered[:-1]
    return order[first]


class LabelQuality(NamedTuple):
    """How well clusters match identities, over the clustered images only, each in [0, 1]."""

    ari: float
    precision: float
    recall: float


def label_quality(labels: Tensor, person_ids: Tensor) -> LabelQuality:
    """Compares pseudo labels (N,) with identities (N,); outliers (-1) are left out.

    `ari` is the adjusted Rand index (Hubert and Arabie, 1985). `precision` is the share of pairs
    in one cluster that are of one identity, `recall` the share of pairs of one identity, both
    clustered, that are in one cluster. Read them beside the share of outliers.
    """
    clustered = labels >= 0
    found, truth = labels[clustered].numpy(), person_ids[clustered].numpy()
    if not len(found):
        return LabelQuality(0.0, 0.0, 0.0)
    (_, only_found), (only_truth, both) = pair_confusion_matrix(truth, found)
    return LabelQuality(
        ari=float(adjusted_rand_score(truth, found)),
        precision=float(both / max(both + only_found, 1)),
        recall=float(both / max(both + only_truth, 1)),
    )
