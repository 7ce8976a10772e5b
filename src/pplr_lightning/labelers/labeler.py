"""What every labeler is, and which of the classes found can be trained on."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import torch
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor

from pplr_lightning.data import Sample
from pplr_lightning.functional.checks import check_count
from pplr_lightning.labelers.space import Space

FEWEST_PEOPLE = 25  # that images are expected to be of


class Labeler(ABC):
    """Gives every training image a class at the begin of an epoch.

    Every rank calls it with its share of the images and gets the classes of all. What it keeps
    from one epoch to the next is in `state_dict`, which checkpoints hold.
    """

    def check(self, samples: Sequence[Sample]) -> None:  # noqa: B027
        """Checks before any work that it can label these images.

        Raises:
            ValueError: It cannot: there are too few, or their ids are not known.
        """

    @abstractmethod
    def label(self, space: Space) -> Tensor:
        """Labels the images of `space`.

        Returns:
            A class of each image, 0 to K - 1, -1 for none, (N,) int64; the same on every rank.
        """

    def chosen_options(self) -> dict[str, float]:
        """Tells the options that it chose by itself, for the run's record."""
        return {}

    def state_dict(self) -> dict[str, Any]:
        """Returns what a run that goes on has to find again: tensors and plain values."""
        return {}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:  # noqa: B027
        """Takes what `state_dict` returned."""


def warn_of_large(owner: str, images: int, /, **counts: int) -> None:
    """Warns of options of `owner` that count a person's images, where these cannot be so many.

    Args:
        owner: What the warning calls it.
        images: All that there are.
        counts: By name.
    """
    seen = ", unless the clusters that `pplr labels` shows for it are people"
    for name, value in counts.items():
        if value * FEWEST_PEOPLE > images:
            rank_zero_warn(
                f"{owner}.{name}={value} suits people of about {value} images each, of whom "
                f"{images} images show {images // value}; if yours have fewer, it counts other "
                f"people, and what they stand before: lower {name}"
                + (seen if owner == "labeler" else "")
            )


def trainable_classes(classes: Tensor, most: int | None = None) -> Tensor:
    """Checks that there is something to tell apart, and keeps the largest of too many classes.

    Args:
        classes: 0 to K - 1, -1 for none, (N,).
        most: Classes that a method can train on; None for any number.

    Returns:
        Classes without gaps; images of classes that are left out get -1, (N,).

    Raises:
        ValueError: There are fewer than two classes, or fewer than two are to be kept.
    """
    if most is not None:
        check_count("max_clusters", most, least=2)
    sizes = torch.bincount(classes[classes >= 0])
    if len(sizes) < 2:
        outliers = int((classes < 0).sum())
        found = "a single class" if len(sizes) else "no class"
        # One class beside many outliers is a density that too few images reach.
        crowded = len(sizes) and outliers <= len(classes) / 2
        fix = "lower eps or k1" if crowded else "raise eps or lower min_samples"
        raise ValueError(
            f"{found} in {len(classes)} images, {outliers} of them outliers: {fix} "
            "(pseudo_labels.labeler), or start from better features (network.weights)"
        )
    if most is None or len(sizes) <= most:
        return classes
    rank_zero_warn(
        f"{len(sizes)} classes, but max_clusters={most}: the smallest {len(sizes) - most} are left "
        "out of this epoch; raise max_clusters"
    )
    kept = sizes.argsort(descending=True, stable=True)[:most].sort().values
    number = torch.full((len(sizes) + 1,), -1)
    number[kept] = torch.arange(most)
    return number[classes]  # -1 picks the last entry, which is -1
