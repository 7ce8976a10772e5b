"""Clusters to look at in order of doubt, and the answers of who looks, as pairs in a file."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from pplr_lightning.atomic_write import written_whole
from pplr_lightning.data.pairs import PairRow, Pairs, pair_rows
from pplr_lightning.functional import cluster_doubt
from pplr_lightning.labelers.assignment import Assignment

SHOWN = 60  # images of a cluster
BESIDE = 24  # images beside it
SCHEMA = pa.schema(
    [
        ("path_a", pa.string()),
        ("path_b", pa.string()),
        ("same", pa.bool_()),
        ("answer", pa.int64()),  # rows of one are taken back together
    ]
)


class View(NamedTuple):
    """What is asked of a cluster.

    Attributes:
        cluster: Its number: of several that were found to be one the first in order.
        images: Those that are shown: the clearest, then the most doubtful first.
        size: How many it has.
        beside: The nearest images of other clusters and of none, of each cluster one, of which it
            is not known whether they are the same.
    """

    cluster: int
    images: tuple[int, ...]
    size: int
    beside: tuple[int, ...]


class Corrections:
    """Answers about clusters, each of which is in the file when its method returns.

    A split and a drop leave a cluster with fewer images, and a merge with more: what is asked next
    is of these. The pairs are of single images, so that they mean the same to any later labelling.

    Args:
        assignment: The clusters.
        file: Parquet, as `data.pairs.read_pairs` reads it; what it holds already counts. A column
            `answer` numbers the answers.

    Attributes:
        order: Clusters, the highest `functional.cluster_doubt` first.
        rows: All that is known, of other images, too.

    Raises:
        ValueError: The file is there, and no such table, or its rows contradict each other.
    """

    def __init__(self, assignment: Assignment, file: Path) -> None:
        if file.suffix != ".parquet":
            raise ValueError(f"{file}: answers are written as Parquet: give a name with .parquet")
        self.assignment = assignment
        self.file = file
        self._clarity: list[float] = assignment.silhouettes.tolist()
        self._neighbors = assignment.neighbors.numpy()  # of a million images lists take GBs
        self._given: list[int] = assignment.classes.tolist()
        doubt = cluster_doubt(assignment.silhouettes, assignment.classes)
        self.order: list[int] = doubt.argsort(descending=True, stable=True).tolist()
        self._rank = {cluster: place for place, cluster in enumerate(self.order)}
        self._number = {name: place for place, name in enumerate(assignment.names)}
        self._seen = _stamp(file)  # before it is read: what comes in between is found later
        found = [] if self._seen is None else list(pair_rows(file))
        _check(found)
        self.rows = [row for _, row in found]
        self._replay()

    @property
    def answers(self) -> int:
        """How many answers there are."""
        return len({row.answer for row in self.rows})

    def clusters(self) -> list[int]:
        """Lists the clusters that are left to look at, in order of doubt."""
        return [one for one in self.order if self._members[one]]

    def clarity(self, image: int) -> float:
        """Returns an image's silhouette, in [-1, 1]."""
        return self._clarity[image]

    def cluster_of(self, image: int) -> int:
        """Returns the cluster that an image is in by now; below 0 where it is in none."""
        return self._cluster[image]

    def size_of(self, cluster: int) -> int:
        """Returns how many images a cluster has by now."""
        return len(self._members[cluster])

    def view(self, cluster: int) -> View:
        """Says what is to be shown and asked of a cluster, or of what it was merged with."""
        while self._parent[cluster] != cluster:
            cluster = self._parent[cluster]
        images = sorted(self._members[cluster], key=self._clarity.__getitem__)
        shown = (*images[-1:], *images[:-1][: SHOWN - 1])
        return View(cluster, shown, len(images), self._beside(cluster))

    def merge(self, view: View, chosen: Sequence[int]) -> None:
        """Says which of the images beside a cluster are of its person; the others are not.

        Their clusters become one with it. None may be chosen.

        Raises:
            ValueError: There is nothing to choose from, or an earlier answer says otherwise.
        """
        if not view.images or not view.beside:
            raise ValueError("there is no image beside this cluster to compare it with")
        self._add([(view.images[0], one, one in chosen) for one in view.beside])

    def split(self, view: View, chosen: Sequence[int]) -> None:
        """Parts the images chosen from the others that were shown, which are one person.

        Raises:
            ValueError: None is chosen or left, or an earlier answer says otherwise.
        """
        left = [image for image in view.images if image not in chosen]
        if not chosen or not left:
            raise ValueError("choose the images of other people, and leave one at least")
        first = max(left, key=self._clarity.__getitem__)
        same = [(first, one, True) for one in left if one != first]
        self._add(same + [(first, one, False) for one in chosen])

    def drop(self, chosen: Sequence[int]) -> None:
        """Leaves the images chosen out of training.

        Raises:
            ValueError: None is chosen.
        """
        if not chosen:
            raise ValueError("choose the images to leave out")
        self._add([(one, None, None) for one in chosen])

    def undo(self) -> None:
        """Takes the last answer back.

        Raises:
            ValueError: There is none; pairs of another origin stay.
        """
        last = max((row.answer for row in self.rows), default=0)
        if last == 0:
            raise ValueError("there is no answer to take back")
        self._write([row for row in self.rows if row.answer != last])

    def pairs(self) -> Pairs:
        """Gives the answers as a labelling takes them."""
        rows = [("", row) for row in self.rows if self._is_known(row)]
        return Pairs.of(rows, self._number)

    def _beside(self, cluster: int) -> tuple[int, ...]:
        """Lists the images that most of a cluster's have among their nearest.

        Each counts the sum of 1 / rank over the images whose neighbour it is.
        """
        near: Counter[int] = Counter()
        for image in self._members[cluster]:
            for rank, other in enumerate(self._neighbors[image].tolist(), 1):
                near[other] += 1 / rank  # type: ignore[assignment]
        found: dict[int, int] = {}
        for image, _ in near.most_common():
            key = self._key(image)
            known = key == cluster or frozenset((cluster, key)) in self._apart
            if not known and image not in self._dropped:
                found.setdefault(key, image)
        return tuple(found.values())[:BESIDE]

    def _key(self, image: int) -> int:
        """Numbers an image's cluster, or itself below 0 where it is in none."""
        cluster = self._cluster[image]
        return cluster if cluster >= 0 else -1 - image

    def _add(self, rows: Sequence[tuple[int, int | None, bool | None]]) -> None:
        number = 1 + max((row.answer for row in self.rows), default=0)
        names = self.assignment.names
        told = [
            PairRow(names[one], None if other is None else names[other], same, number)
            for one, other, same in rows
        ]
        self._write([*self.rows, *told])

    def _write(self, rows: list[PairRow]) -> None:
        """Has the file hold these rows, or leaves it and all else as it is."""
        if _stamp(self.file) != self._seen:
            raise ValueError(
                f"{self.file} was changed meanwhile, and this is not in it: start `correct` again"
            )
        try:
            _check([("", row) for row in rows])
        except ValueError as error:
            raise ValueError("this contradicts an earlier answer; take that back first") from error
        columns = dict(zip(SCHEMA.names, zip(*rows, strict=True), strict=True)) if rows else {}
        table = pa.table({name: columns.get(name, []) for name in SCHEMA.names}, schema=SCHEMA)
        with written_whole(self.file, synced=True) as aside:
            pq.write_table(table, aside)
            seen = _stamp(aside)  # which takes it along to its place
        self._seen = seen
        self.rows = rows
        self._replay()

    def _is_known(self, row: PairRow) -> bool:
        """Tells whether a row is of these images; others, of another labelling, wait."""
        return row.one in self._number and (row.other is None or row.other in self._number)

    def _numbered(self) -> Iterator[tuple[int, int | None, bool | None]]:
        for one, other, same, _ in filter(self._is_known, self.rows):
            yield self._number[one], None if other is None else self._number[other], same

    def _replay(self) -> None:
        """Finds what the answers make of the clusters, one after the other."""
        self._cluster = list(self._given)
        self._members: list[set[int]] = [set() for _ in self.order]
        for image, cluster in enumerate(self._given):
            if cluster >= 0:
                self._members[cluster].add(image)
        self._parent = list(range(len(self.order)))
        self._dropped: set[int] = set()
        apart = []
        for one, other, same in self._numbered():
            if other is None:
                self._dropped.add(one)
                self._move(one, -1)
            elif same:
                self._become_one(one, other)
            else:
                apart.append((one, other))
                if self._key(one) == self._key(other):
                    self._move(other, -1)
        self._apart = {frozenset(map(self._key, pair)) for pair in apart}

    def _become_one(self, one: int, other: int) -> None:
        ends = {self._cluster[one], self._cluster[other]} - {-1}
        if not ends:
            return
        root, *rest = sorted(ends, key=self._rank.__getitem__)
        for image in (one, other):
            if self._cluster[image] < 0 and image not in self._dropped:
                self._move(image, root)
        for cluster in rest:
            self._parent[cluster] = root
            for image in list(self._members[cluster]):
                self._move(image, root)

    def _move(self, image: int, cluster: int) -> None:
        if self._cluster[image] >= 0:
            self._members[self._cluster[image]].discard(image)
        self._cluster[image] = cluster
        if cluster >= 0:
            self._members[cluster].add(image)


def _stamp(file: Path) -> tuple[int, int] | None:
    """Tells when a file was written, and its size, by which a change is seen; None for no file."""
    if not file.exists():
        return None
    status = file.stat()
    return status.st_mtime_ns, status.st_size


def _check(rows: Sequence[tuple[str, PairRow]]) -> None:
    """Complains of rows that contradict each other, whatever images they are of."""
    ends = (name for _, row in rows for name in (row.one, row.other) if name is not None)
    Pairs.of(rows, {name: place for place, name in enumerate(dict.fromkeys(ends))})
