"""Data sets whose people are split into training and test several times."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Literal

from pplr_lightning.data.datasets import PublishedDataset, Sample, Splits


class SplitDataset(PublishedDataset):
    """A data set that is reported as mean and deviation over several splits.

    Attributes:
        num_splits: How many there are.

    Args:
        root: The folder that holds the set.
        split: Which of them, counted from 0; `all` has `test` go through them one after the other.

    Raises:
        ValueError: There is no such split.
    """

    num_splits: int = 10

    def __init__(self, root: str | Path, *, split: int | Literal["all"] = 0) -> None:
        super().__init__(root)
        if split != "all" and not 0 <= split < self.num_splits:
            raise ValueError(
                f"split={split}: {self.name} has {self.num_splits}, counted from 0; give one of "
                "them, or 'all' for the test of each"
            )
        self.split = split

    @property
    def number(self) -> int:
        """The number of the split that is read.

        Raises:
            ValueError: It is `all`, which is none.
        """
        if self.split == "all":
            raise ValueError(
                f"split=all: the splits of {self.name} share people, so that only `test` can go "
                "through them; give one number"
            )
        return self.split

    def load(self) -> Splits:
        """Lists the images of one split."""
        self.variant = f"split {self.number} of {self.num_splits}, counted from 0"
        return super().load()

    def _two_views(self, views: Sequence[dict[str, list[Sample]]]) -> Splits:
        """Splits people who are in both of two views, and has one view search the other.

        Half of them train, drawn by half of the split's number; where that is odd the second view's
        images are queries.

        Args:
            views: The images of each person, by name, of one view and the other.

        Raises:
            ValueError: Someone is in one of them alone.
        """
        if alone := views[0].keys() ^ views[1].keys():
            raise ValueError(
                f"{self.root}: person {min(alone)} is under one of the two cameras alone, of "
                f"{len(alone)} people; unpack the data set again"
            )
        order = shuffled(views[0], self.number // 2)
        seen, tested = sorted(order[: len(order) // 2]), sorted(order[len(order) // 2 :])
        query, gallery = views if self.number % 2 == 0 else reversed(views)
        return Splits(
            train=samples_of(views[0], seen) + samples_of(views[1], seen),
            query=samples_of(query, tested),
            gallery=samples_of(gallery, tested),
        )


def shuffled(names: Iterable[str], seed: int) -> list[str]:
    """Orders names at random, by hashes, which are the same on every machine.

    Example:
        >>> shuffled("abcd", 0), shuffled("dcba", 0), shuffled("abcd", 1)
        (['c', 'b', 'd', 'a'], ['c', 'b', 'd', 'a'], ['d', 'a', 'b', 'c'])
    """
    return sorted(names, key=lambda name: sha256(f"{seed}/{name}".encode()).digest())


def samples_of(people: dict[str, list[Sample]], names: Iterable[str]) -> list[Sample]:
    """Lists the images of some people, one person after the other."""
    return [sample for name in names for sample in people[name]]
