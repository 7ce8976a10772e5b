"""An epoch's labels in numbers: their clusters, and how well these match true identities."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from pplr_lightning.data.pseudo_labels import PseudoLabels
from pplr_lightning.functional.clustering import camera_pairs


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


def label_changes(before: Tensor, after: Tensor) -> dict[str, float]:
    """Follows the clusters of one labelling, (N,), into the next, (N,); outliers are -1.

    Returns:
        Shares of the clusters before, in [0, 1]: `kept` have more than half of their images in one
        cluster, of which these are more than half; `merged` have them in one of which these are no
        more than half; of `split` no cluster has more than half. Empty where there was no cluster.

    Example:
        >>> import torch
        >>> before = torch.tensor([0, 0, 0, 1, 1, 1, 2, 2, 2, 2])
        >>> after = torch.tensor([0, 0, 0, 0, 0, 0, 1, 1, 2, -1])
        >>> {name: round(share, 2) for name, share in label_changes(before, after).items()}
        {'kept': 0.0, 'merged': 0.67, 'split': 0.33}
    """
    sizes = before[before >= 0].bincount()
    if not len(sizes):
        return {}
    both = torch.stack([before, after])[:, (before >= 0) & (after >= 0)]
    (old, new), shared = both.unique(dim=1, return_counts=True)
    # At most one cluster has more than half of another.
    most = 2 * shared > sizes[old]
    kept = most & (2 * shared > after[after >= 0].bincount()[new])
    total = len(sizes)
    return {
        "kept": int(kept.sum()) / total,
        "merged": int((most & ~kept).sum()) / total,
        "split": 1 - int(most.sum()) / total,
    }


def share_across_cameras(labels: Tensor, cameras: Tensor) -> float | None:
    """Finds the share of the clustered images whose cluster holds images of several cameras.

    Args:
        labels: Clusters (N,), -1 for outliers.
        cameras: (N,), -1 where not known.

    Returns:
        In [0, 1]; None where fewer than two cameras are known, or nothing is clustered.

    Example:
        >>> import torch
        >>> share_across_cameras(torch.tensor([0, 0, 1, 1, -1]), torch.tensor([1, 2, 1, 1, 2]))
        0.5
    """
    sizes = labels[labels >= 0].bincount()
    if not len(sizes) or len(cameras[cameras >= 0].unique()) < 2:
        return None
    _, clusters, _ = camera_pairs(torch.where(cameras >= 0, labels, -1), cameras)
    spans = torch.bincount(clusters, minlength=len(sizes)) > 1
    return int(sizes[spans].sum()) / int(sizes.sum())


def label_statistics(
    labels: PseudoLabels, person_ids: Tensor, cameras: Tensor, before: Tensor | None = None
) -> dict[str, float]:
    """Sums up an epoch's labels as they are logged (`labels/<name>`).

    Args:
        labels: Of N images.
        person_ids: True identities (N,); -1 where not known, which leaves out `label_quality`.
        cameras: Camera ids (N,); -1 where not known, which leaves out `across_cameras`.
        before: Classes (N,) of the epoch before, if there was one: for `label_changes`.
    """
    values = {"clusters": float(labels.num_classes), "outliers": labels.outlier_share}
    sizes = labels.classes[labels.classes >= 0].bincount()
    if len(sizes):
        values["largest"] = int(sizes.max()) / len(labels.classes)
    across = share_across_cameras(labels.classes, cameras)
    if across is not None:
        values["across_cameras"] = across
    if before is not None:
        values |= label_changes(before, labels.classes)
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
