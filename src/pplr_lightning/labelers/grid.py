"""The labels of many settings of DBSCAN at once, measured with and without the truth."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import groupby, product
from typing import Any, NamedTuple

import torch
from torch import Tensor

from pplr_lightning import functional as F
from pplr_lightning.data.pairs import Pairs
from pplr_lightning.evaluation.label_quality import (
    label_quality,
    rand_index,
    share_across_cameras,
)
from pplr_lightning.functional.checks import check_count, check_counts
from pplr_lightning.functional.silhouette import label_score_rows
from pplr_lightning.labelers.density import check_density
from pplr_lightning.labelers.space import Space

K1 = (6, 10, 16, 24, 30)
EPS = (0.4, 0.45, 0.5, 0.55, 0.6, 0.65)
MIN_SAMPLES = (2, 4)
TRACKLETS_K1 = (3, 5, 8, 12)  # where a person has a few of them
SCORED = 4096  # images that the score looks at
# What makes a setting implausible, whatever its score.
LARGEST = 0.2  # of all images in one cluster
TIMES = 4  # more or fewer images per cluster than expected
LARGE = 10  # times as many images in a cluster as expected
INSTANCES = 4  # images of a cluster in a batch (`data.instances`)
SPANNING = 0.25  # least share of clustered images whose cluster spans cameras


class Setting(NamedTuple):
    """Options of `DBSCAN`."""

    k1: int
    k2: int
    eps: float
    min_samples: int

    def __str__(self) -> str:
        return f"k1 {self.k1}, k2 {self.k2}, eps {self.eps:g}, min_samples {self.min_samples}"


@dataclass
class GridLabels:
    """Labels of one setting, and what is known of them.

    Attributes:
        setting: They were made with.
        classes: A cluster of each image, -1 for none, (N,) int64.
        values: By name, shares in [0, 1]: `clusters` and `outliers` (the share of images in none),
            `largest` (share of all images in the largest cluster), `median_size` and
            `images_per_cluster` (images); `across_cameras`, the share of clustered images whose
            cluster spans more than one camera, where cameras are known; `score`, of
            `functional.label_score`; `persistence`, the mean adjusted Rand index with the labels
            of the neighbouring settings, those one step away along one option. Where all identities
            are known `ari`, over all images, each outlier a cluster of its own, `precision` and
            `recall` of pairs of clustered images, and `recall_across` of those in two cameras.
        doubts: Why it is no candidate, in words; empty where it may be one.
    """

    setting: Setting
    classes: Tensor
    values: dict[str, float]
    doubts: list[str] = field(default_factory=list)


def label_grid(
    space: Space,
    *,
    k1: Sequence[int] = K1,
    k2: Sequence[int] | None = None,
    eps: Sequence[float] = EPS,
    min_samples: Sequence[int] = MIN_SAMPLES,
    images_per_person: float | None = None,
    pairs: Pairs | None = None,
) -> list[GridLabels]:
    """Labels images by `DBSCAN` under every combination of settings.

    Neighbours are searched once, for the largest k1; the distances of a k1 and k2 are computed once
    for all eps and min_samples. Values of k1 beyond the number of images are left out.

    Args:
        space: The images; where several ranks share them, every rank calls this. Of tracklets
            (`Space.of_tracklets`) k1, k2 and min_samples count these, and all else counts images,
            which get the class of their tracklet.
        k1: As of `DBSCAN`.
        k2: Likewise, each with every k1 that is no less; None takes k1 // 5, at least 1.
        eps: Likewise.
        min_samples: Likewise.
        images_per_person: Images that a person has on average, where that is known or guessed.
        pairs: Of the images; the labels obey them (`Space.constrain`).

    Returns:
        Labels of each setting, in the order of k1, k2, eps, min_samples; on every rank.

    Raises:
        ValueError: A setting is out of range, or none is left.

    Example:
        >>> features = torch.eye(4).repeat_interleave(6, dim=0)
        >>> grid = label_grid(Space.of(features), k1=[4, 6], eps=[0.5], min_samples=[2])
        >>> [int(labels.values["clusters"]) for labels in grid]
        [4, 4]
    """
    axes = check_grid(k1, k2, eps, min_samples, images_per_person)
    images, tracklets = space.frames or (space, None)
    known = pairs if pairs is None or tracklets is None else pairs.of_tracklets(tracklets)
    settings = [setting for setting in axes if max(setting[:2]) <= space.total]
    if not settings:
        check_count("k1", min(max(setting[:2]) for setting in axes), space.total)
    images.features  # noqa: B018  # before those of tracklets, which would let them go
    space.num_neighbors = max(max(setting[:2]) for setting in settings)
    grid = []
    for setting, found in _labelled(space, settings):
        if known is not None:
            found = space.constrain(found, known)
        classes = found if tracklets is None else found[tracklets]
        if pairs is not None:
            classes = classes.masked_fill(pairs.dropped, -1)
        values = _measure(images, classes)
        doubts = _doubts(images, values, images_per_person)
        grid.append(GridLabels(setting, classes, values, doubts))
    for labels, nearby in zip(grid, _persistence(grid), strict=True):
        labels.values["persistence"] = nearby
    return grid


def candidates(grid: Sequence[GridLabels], most: int = 3) -> list[GridLabels]:
    """Picks settings to look at: of those without doubts the highest score, each of another k1.

    A score cannot tell clusters of people from clusters of backgrounds: that is for who looks.

    Args:
        grid: Of `label_grid`.
        most: How many.

    Returns:
        The highest score first; empty where every setting is in doubt.
    """
    found: dict[int, GridLabels] = {}
    for labels in sorted(grid, key=lambda one: -one.values["score"]):
        if not labels.doubts:
            found.setdefault(labels.setting.k1, labels)
    return list(found.values())[:most]


def least_doubtful(grid: Sequence[GridLabels], most: int = 3) -> list[GridLabels]:
    """Picks settings where there are no candidates: those with the fewest doubts.

    Args:
        grid: Of `label_grid`.
        most: How many.

    Returns:
        Of as few doubts the highest score first; last those without two clusters.
    """

    def doubtful(labels: GridLabels) -> tuple[bool, int, float]:
        values = labels.values
        return values["clusters"] < 2, len(labels.doubts), -values["score"]

    return sorted(grid, key=doubtful)[:most]


def choose(grid: Sequence[GridLabels]) -> GridLabels:
    """Picks the first of `candidates`; where there are none, of `least_doubtful`.

    Args:
        grid: Of `label_grid`, not empty.

    Example:
        >>> features = torch.eye(8).repeat_interleave(6, dim=0)
        >>> grid = label_grid(Space.of(features), k1=[6, 30], eps=[0.5], min_samples=[2])
        >>> str(choose(grid).setting)
        'k1 6, k2 1, eps 0.5, min_samples 2'
    """
    return (candidates(grid, 1) or least_doubtful(grid, 1))[0]


def check_grid(
    k1: Sequence[int],
    k2: Sequence[int] | None,
    eps: Sequence[float],
    min_samples: Sequence[int],
    images_per_person: float | None = None,
) -> list[Setting]:
    """Lists the settings of a grid, before there are images.

    Raises:
        ValueError: One is out of range, or there is none.
    """
    if images_per_person is not None and not images_per_person >= 1:
        raise ValueError(f"images_per_person={images_per_person}: a person has one image or more")
    pairs = [
        (one, other)
        for one in sorted(set(k1))
        for other in sorted({_fifth(one)} if k2 is None else set(k2))
    ]
    settings = [
        Setting(*pair, float(distance), least)
        for pair, distance, least in product(pairs, sorted(set(eps)), sorted(set(min_samples)))
        if pair[1] <= max(1, pair[0])
    ]
    for one in settings:
        check_counts("labeler", k1=one.k1, k2=one.k2)
        check_density(one.eps, one.min_samples)
    if not settings:
        raise ValueError("no setting is left: give a k1, an eps and a min_samples, and a k2 <= k1")
    return settings


def _fifth(k1: int) -> int:
    return max(1, k1 // 5)


def _labelled(space: Space, settings: Sequence[Setting]) -> Iterator[tuple[Setting, Tensor]]:
    farthest = max(setting.eps for setting in settings)
    for (k1, k2), some in groupby(settings, lambda setting: setting[:2]):
        distance = space.jaccard(k1=k1, k2=k2, max_distance=farthest)
        for one in some:
            yield (
                one,
                F.dbscan(
                    distance,
                    eps=one.eps,
                    min_samples=one.min_samples,
                    cannot_link=space.cannot_link,
                ),
            )


def _measure(space: Space, classes: Tensor) -> dict[str, float]:
    sizes = torch.bincount(classes[classes >= 0])
    clustered, some = int(sizes.sum()), len(sizes) > 0
    values = {
        "clusters": float(len(sizes)),
        "outliers": 1 - clustered / space.total,
        "largest": int(sizes.max()) / space.total if some else 0.0,
        "median_size": float(sizes.double().quantile(0.5)) if some else 0.0,
        "images_per_cluster": clustered / len(sizes) if some else 0.0,
        # The number of ranks shows in the last digits.
        "score": round(label_score_rows(space.features, classes, space.share, most=SCORED), 6),
    }
    if space.cameras is not None and knows_cameras(space):
        values["across_cameras"] = share_across_cameras(classes, space.cameras) or 0.0
    if space.persons is not None and bool((space.persons >= 0).all()):
        values["ari"] = rand_index(classes, space.persons)
        quality = label_quality(classes, space.persons)
        values |= {"precision": quality.precision, "recall": quality.recall}
        if "across_cameras" in values:
            found = torch.stack([space.persons, space.cameras, classes])  # type: ignore[list-item]
            values["recall_across"] = _recall_across(*found[:, classes >= 0])
    return values


def _recall_across(persons: Tensor, cameras: Tensor, classes: Tensor) -> float:
    """Counts the pairs of one person in two cameras, and the share of them in one cluster."""

    def pairs(*ids: Tensor) -> int:
        counts = torch.stack(ids).unique(dim=1, return_counts=True)[1]
        return int((counts * (counts - 1)).sum())

    joined = pairs(persons, classes) - pairs(persons, classes, cameras)
    return joined / max(pairs(persons) - pairs(persons, cameras), 1)


def knows_cameras(space: Space) -> bool:
    """Tells whether images of two cameras or more are known."""
    cameras = space.cameras
    return cameras is not None and len(cameras[cameras >= 0].unique()) > 1


def _doubts(space: Space, values: dict[str, float], images_per_person: float | None) -> list[str]:
    """Says what speaks against a setting, whatever its score."""
    if values["clusters"] < 2:
        return ["fewer than two clusters"]
    doubts = []
    if values["largest"] > LARGEST:
        doubts.append(f"one cluster holds {values['largest']:.0%} of the images")
    expected = images_per_person or float("inf")
    # Of those with a few images a batch has nothing but what its cluster was made of.
    if values["median_size"] <= min(INSTANCES, expected / 2):
        doubts.append(f"half of its clusters have {values['median_size']:g} images or fewer")
    if images_per_person is not None:
        size, largest = values["images_per_cluster"], values["largest"] * space.total
        if not expected / TIMES <= size <= expected * TIMES:
            doubts.append(f"{size:.1f} images per cluster for {expected:g} per person")
        if largest > expected * LARGE:
            doubts.append(f"{largest:,.0f} images in a cluster for {expected:g} per person")
    if values.get("across_cameras", 1.0) < SPANNING:
        doubts.append(
            f"{values['across_cameras']:.0%} of the clustered images in clusters of two cameras"
        )
    return doubts


def _persistence(grid: Sequence[GridLabels]) -> Iterator[float]:
    """Compares each setting's labels with those one step away along one option."""
    settings = [labels.setting for labels in grid]
    axes: list[list[Any]] = [sorted({one[axis] for one in settings}) for axis in (0, 2, 3)]
    places: dict[tuple[int, ...], int] = {}
    for number, (k1, k2, eps, least) in enumerate(settings):
        # k2 either goes with k1, or has steps of its own for each.
        of_k1 = sorted({one.k2 for one in settings if one.k1 == k1})
        steps = zip((of_k1, *axes), (k2, k1, eps, least), strict=True)
        places[tuple(axis.index(value) for axis, value in steps)] = number
    agreed: dict[int, list[float]] = {number: [] for number in range(len(grid))}
    for place, number in places.items():
        for axis in range(len(place)):
            step = tuple(int(number == axis) for number in range(len(place)))
            other = places.get(tuple(map(sum, zip(place, step, strict=True))))
            if other is not None:
                found = rand_index(grid[number].classes, grid[other].classes)
                agreed[number].append(found)
                agreed[other].append(found)
    for values in agreed.values():
        yield sum(values) / len(values) if values else float("nan")
