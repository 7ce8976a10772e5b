"""What someone has said of pairs of training images, read from a table."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import torch
from torch import Tensor

from pplr_lightning.data.datasets import ReIDDataset, Sample
from pplr_lightning.data.table_rows import table_rows
from pplr_lightning.functional.constraints import linked_sets

ENDS = ("path_a", "path_b")
COLUMNS = (*ENDS, "same")
TRUTH = {"true": True, "1": True, "1.0": True, "false": False, "0": False, "0.0": False}


@dataclass(frozen=True)
class Pairs:
    """Pairs of N images, as `functional.constrain_labels` takes them.

    Attributes:
        must_link: Images of one person, two in each row, (M, 2) int64.
        cannot_link: Images of two people, likewise.
        dropped: Images that are not to be trained on, (N,) bool.
        told: Of each row of `cannot_link`: where it stands, and what the images are called.

    Raises:
        ValueError: Images that cannot be linked must be; names the row.
    """

    must_link: Tensor
    cannot_link: Tensor
    dropped: Tensor
    told: Sequence[str]

    def __post_init__(self) -> None:
        sets = linked_sets(self.must_link, len(self.dropped))[self.cannot_link]
        for row in (sets[:, 0] == sets[:, 1]).nonzero()[:1, 0].tolist():
            raise ValueError(
                f"{self.told[row]} are said to be two people, but one by other rows (same), "
                "directly or over other images, or by a tracklet that holds both; take out what "
                "is wrong"
            )

    @classmethod
    def of(cls, rows: Iterable[tuple[str, PairRow]], number: Mapping[str, int]) -> Pairs:
        """Makes them of rows of `pair_rows`.

        Args:
            rows: Where each stands, and the row.
            number: Of each image, 0 to N - 1, by its name.
        """
        linked: dict[bool, list[tuple[int, int]]] = {True: [], False: []}
        dropped = torch.zeros(len(number), dtype=torch.bool)
        told = []
        for where, row in rows:
            if row.other is None or row.same is None:
                dropped[number[row.one]] = True
                continue
            linked[row.same].append((number[row.one], number[row.other]))
            if not row.same:
                told.append(f"{where}: {row.one} and {row.other}")
        must, cannot = (torch.tensor(linked[same]).view(-1, 2).long() for same in (True, False))
        return cls(must, cannot, dropped, told)

    def of_tracklets(self, numbers: Tensor) -> Pairs:
        """Makes them pairs of tracklets, which are dropped where all of their frames are.

        Args:
            numbers: Tracklet of each image, each of 0 to T - 1 at least once, (N,).

        Raises:
            ValueError: Images that cannot be linked are of one tracklet, or must be linked over
                tracklets.
        """
        dropped = torch.ones(int(numbers.max()) + 1, dtype=torch.bool)
        dropped[numbers[~self.dropped]] = False
        return Pairs(numbers[self.must_link], numbers[self.cannot_link], dropped, self.told)


def image_names(dataset: ReIDDataset, samples: Sequence[Sample]) -> tuple[Path, list[str]]:
    """Names images as tables do.

    Returns:
        The root of the data set, or without one the folder that all images lie in; and the path of
        each image relative to it, with slashes.
    """
    paths = [Path(sample.path) for sample in samples]
    root = getattr(dataset, "root", None)
    if root is None or not all(path.is_relative_to(root) for path in paths):
        root = os.path.commonpath([path.parent for path in paths])
    return Path(root), [path.relative_to(root).as_posix() for path in paths]


def read_pairs(path: Path, root: Path, names: Sequence[str]) -> Pairs:
    """Reads a table with the columns `path_a`, `path_b` and `same`.

    A row says whether two images are of the same person: `same` is true or false (or 1 or 0). A row
    without `path_b` and `same` says that `path_a` is not to be trained on. Other columns are not
    looked at.

    Args:
        path: CSV in UTF-8, or Parquet (`.parquet`).
        root: What names are relative to, for messages.
        names: Of all N images, of `image_names`.

    Raises:
        FileNotFoundError: There is no such table.
        ValueError: It is no such table, a row is of no image, or rows contradict each other; names
            the row.
    """
    number = {name: place for place, name in enumerate(names)}
    rows = list(pair_rows(path))
    for where, row in rows:
        for name in (row.one, row.other):
            if name is not None and name not in number:
                raise ValueError(
                    f"{where}: no training image {name}: names are relative to {root}, with slashes"
                )
    return Pairs.of(rows, number)


class PairRow(NamedTuple):
    """What is known of two images, or, without another, that one is to be left out.

    Attributes:
        one: Name of an image.
        other: Likewise; None for none.
        same: Whether they are of one person; None without another.
        answer: Rows of one number were told at once; 0 where that is not known.
    """

    one: str
    other: str | None
    same: bool | None
    answer: int = 0


def pair_rows(path: Path) -> Iterator[tuple[str, PairRow]]:
    """Reads the rows of a table of `read_pairs`, whatever images they are of.

    Yields:
        Where a row stands, and the row.

    Raises:
        FileNotFoundError, ValueError: As of `read_pairs`.
    """
    for where, row in table_rows(path, (*COLUMNS, "answer"), _check_columns):
        # ./1.png is 1.png
        one, other = (PurePosixPath(row[name]).as_posix() if row[name] else None for name in ENDS)
        same = row["same"].strip().lower()
        answer = row.get("answer", "").strip().removesuffix(".0")  # a column with gaps is of floats
        number = int(answer) if answer.isdecimal() else 0
        if one is not None and other is None and not same:
            yield where, PairRow(one, None, None, number)
        elif one is not None and other is not None and same in TRUTH:
            if one == other and not TRUTH[same]:
                raise ValueError(f"{where}: {one} is said to be two people; take that row out")
            yield where, PairRow(one, other, TRUTH[same], number)
        else:
            raise ValueError(
                f"{where}: needs path_a, path_b and a same of true or false; or path_a alone, of "
                f"an image to leave out; has {row['path_a']!r}, {row['path_b']!r}, {row['same']!r}"
            )


def _check_columns(path: Path, columns: list[str]) -> None:
    if missing := [name for name in COLUMNS if name not in columns]:
        raise ValueError(
            f"{path}: has no column {missing[0]}; needs {', '.join(COLUMNS)}, has {sorted(columns)}"
        )
