"""Contact sheets of clusters and of what is in none."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import torch
from matplotlib.figure import Figure
from torch import Tensor

from pplr_lightning.data import Sample
from pplr_lightning.functional import cluster_doubt
from pplr_lightning.visualization.layout import Sheet, on_white, sample, spread

COLUMNS = 12
LARGEST, DOUBTFUL, MIXED, TYPICAL = 3, 2, 3, 3
OUTLIERS = 1

Row = tuple[str, dict[int, str]]  # its name, and what to write below each image


@on_white
def clusters_figure(
    samples: Sequence[Sample],
    labels: Tensor,
    *,
    silhouettes: Tensor | None = None,
    when: str = "",
    seed: int = 0,
) -> Figure:
    """Draws the largest clusters, the most mixed or else those of median size, and outliers.

    The most mixed are those of several identities, where these are known.

    Args:
        samples: N images.
        labels: Cluster of each image, -1 for outliers, (N,).
        silhouettes: Of each image, (N,): the most doubtful clusters (`functional.cluster_doubt`)
            are drawn, too.
        when: Said in the title.
        seed: Of the images drawn.
    """
    sizes = torch.bincount(labels[labels >= 0])
    known = all(one.person_id >= 0 for one in samples)
    largest = sizes.argsort(descending=True, stable=True)[:LARGEST].tolist()
    rows = [_cluster("largest", cluster, samples, labels, seed) for cluster in largest]
    if silhouettes is not None:
        order = cluster_doubt(silhouettes, labels).argsort(descending=True, stable=True).tolist()
        doubtful = [cluster for cluster in order if cluster not in largest][:DOUBTFUL]
        rows += [_cluster("most doubtful", one, samples, labels, seed) for one in doubtful]
        largest += doubtful
    if known:
        mixed = _most_mixed(samples, labels, sizes, largest)
        rows += [_cluster("most mixed", cluster, samples, labels, seed) for cluster in mixed]
    else:
        typical = _typical(sizes, largest)
        rows += [_cluster("of median size", cluster, samples, labels, seed) for cluster in typical]
    outside = (labels < 0).nonzero()[:, 0].tolist()
    if outside:
        drawn = [outside[place] for place in sample(len(outside), COLUMNS, seed)]
        rows.append((f"outliers\n{len(outside):,} images", dict.fromkeys(drawn, "")))

    sheet = Sheet(
        len(rows),
        COLUMNS,
        title=f"Clusters{when and ', ' + when}",
        caption=(
            f"{len(samples):,} images, {len(sizes):,} cluster{'s' * (len(sizes) != 1)}, "
            f"{len(outside):,} outliers. Of each row at most {COLUMNS} images, sampled. "
            + (
                "Below an image: its true identity in this cluster, A the most common. The most "
                "mixed are those of the other clusters with the smallest share of A."
                if known
                else "Identities are not known. Median size is that of the clusters in the middle."
            )
            + ("" if silhouettes is None else " The most doubtful have the least clear images.")
        ),
        below=0.2,
        names=1.15,
    )
    for number, (name, images) in enumerate(rows):
        sheet.name(number, name)
        for column, (index, words) in enumerate(images.items()):
            sheet.image(number, column, samples[index].path, words=words)
    return sheet.figure


def _typical(sizes: Tensor, without: list[int]) -> list[int]:
    """Returns clusters whose size is about the median, at even distances among those."""
    if not len(sizes):
        return []
    middle = sizes.double().quantile(0.5)
    order = (sizes - middle).abs().argsort(stable=True).tolist()
    others = [cluster for cluster in order if cluster not in without]
    near = [c for c in others if sizes[c] == sizes[others[0]]]
    return spread(near, TYPICAL) if len(near) >= TYPICAL else others[:TYPICAL]


def _most_mixed(
    samples: Sequence[Sample], labels: Tensor, sizes: Tensor, without: list[int]
) -> list[int]:
    """Returns the clusters in which the most common identity has the smallest share."""
    persons: list[Counter[int]] = [Counter() for _ in sizes]
    for one, label in zip(samples, labels.tolist(), strict=True):
        if label >= 0:
            persons[label][one.person_id] += 1
    purity = {
        cluster: count.most_common(1)[0][1] / count.total()
        for cluster, count in enumerate(persons)
        if len(count) > 1 and cluster not in without
    }
    return sorted(purity, key=lambda cluster: purity[cluster])[:MIXED]


def _cluster(name: str, cluster: int, samples: Sequence[Sample], labels: Tensor, seed: int) -> Row:
    """Samples a cluster's images; those of one identity beside each other."""
    members = (labels == cluster).nonzero()[:, 0].tolist()
    drawn = [members[place] for place in sample(len(members), COLUMNS, seed)]
    title = f"{name}\ncluster {cluster}\n{len(members):,} images"
    if any(samples[index].person_id < 0 for index in members):
        return title, dict.fromkeys(drawn, "")
    ranked = [person for person, _ in Counter(samples[i].person_id for i in members).most_common()]
    drawn.sort(key=lambda index: ranked.index(samples[index].person_id))
    words = {index: _letter(ranked.index(samples[index].person_id)) for index in drawn}
    people = "1 identity" if len(ranked) == 1 else f"{len(ranked):,} identities"
    share = sum(samples[index].person_id == ranked[0] for index in members) / len(members)
    return f"{title}\n{people}\nA: {share:.0%}", words


def _letter(number: int) -> str:
    """A to Z, then numbers."""
    return chr(ord("A") + number) if number < 26 else str(number + 1)
