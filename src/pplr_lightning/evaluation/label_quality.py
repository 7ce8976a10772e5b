"""An epoch's labels in numbers: their clusters, and how well these match true identities."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from pplr_lightning.data.pseudo_labels import PseudoLabels


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
    from sklearn.metrics import adjusted_rand_score  # takes long to import
    from sklearn.metrics.cluster import pair_confusion_matrix

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


def rand_index(labels: Tensor, others: Tensor) -> float:
    """Compares two labellings of all images, (N,) each, by the adjusted Rand index, at most 1.

    Each outlier (-1) is a cluster of its own, so that leaving images out does not raise it.

    Example:
        >>> import torch
        >>> truth = torch.tensor([0, 0, 0, 1, 1, 1])
        >>> rand_index(truth, truth), rand_index(torch.tensor([0, 0, -1, 1, 1, -1]), truth) < 1
        (1.0, True)
    """
    from sklearn.metrics import adjusted_rand_score  # takes long to import

    return float(adjusted_rand_score(*(_alone(some).numpy() for some in (others, labels))))


def _alone(labels: Tensor) -> Tensor:
    outliers = labels < 0
    numbers = torch.arange(int(outliers.sum())) + int(labels.max()) + 1
    return labels.masked_scatter(outliers, numbers)


def label_statistics(labels: PseudoLabels, person_ids: Tensor) -> dict[str, float]:
    """Sums up an epoch's labels as they are logged (`labels/<name>`).

    Args:
        labels: Of N images.
        person_ids: True identities (N,); -1 where not known, which leaves out `label_quality`.
    """
    values = {"clusters": float(labels.num_classes), "outliers": labels.outlier_share}
    sizes = labels.classes[labels.classes >= 0].bincount()
    if len(sizes):
        values["largest"] = int(sizes.max()) / len(labels.classes)
    alone = int((sizes == 1).sum())
    if alone:  # some labelers make no class of one image
        values["singles"] = alone / len(labels.classes)
    agreement = labels.columns.get("agreement")
    if agreement is not None and agreement.numel():
        values["agreement_mean"] = agreement.mean().item()
        for part, mean in enumerate(agreement.mean(dim=0).tolist(), start=1):
            values[f"agreement_part{part}"] = mean
    if (person_ids >= 0).all():  # known: for analysis only
        values |= label_quality(labels.classes, person_ids)._asdict()
    return values
