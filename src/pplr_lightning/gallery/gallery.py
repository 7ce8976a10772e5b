"""A gallery: images that can be searched, in memory and on disk."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple, cast

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from numpy.typing import NDArray
from torch import Tensor

from pplr_lightning.data.datasets import UNKNOWN, Sample
from pplr_lightning.evaluation.fingerprint import Fingerprint
from pplr_lightning.functional.checks import check_count, check_features
from pplr_lightning.gallery.branches import CANDIDATES, branch_shares, rerank, scale_branches
from pplr_lightning.gallery.embeddings import ITEMS, Embeddings
from pplr_lightning.gallery.faiss_index import (
    Kind,
    add_vectors,
    compressed_index,
    exact_index,
    forget_places,
    in_memory,
    kind_within,
    read_vectors,
    search_index,
)
from pplr_lightning.gallery.folders import Place, place_of, read_gallery, write_gallery

MEMORY_LIMIT = 16.0  # GiB in which `auto` keeps the vectors
PROBES = 64  # cells of a compressed index that a query is compared with


class Matches(NamedTuple):
    """What a search found for Q queries, the most similar first.

    Attributes:
        similarity: Cosines in [-1, 1], (Q, k); approximate unless the index is `flat`. Where the
            branches are weighed, the weighted mean of their cosines.
        rows: Rows of the gallery's `items`, (Q, k); -1 behind the last where fewer were found, with
            a similarity of -1.
        distance: By which they were re-ranked, in [0, 1], (Q, k); None where they were not.
    """

    similarity: Tensor
    rows: Tensor
    distance: Tensor | None = None


class Gallery:
    """Images with their vectors in a FAISS index; `Gallery.build` and `Gallery.load` make one.

    Attributes:
        items: A table of the images: `path`, `person_id` and `camera_id` (null if not known), and
            the `id` under which the index holds each.
        fingerprint: What the vectors were made with. Vectors of another one are refused.
        kind: `flat` compares a query with every vector; `ivfsq` holds codes of D bytes, `ivfpq` of
            D/4 or less, and they compare it with some.
        recall: recall@10 when it was built; None for `flat`, which is exact.
    """

    def __init__(
        self,
        index: Any,
        items: pa.Table,
        fingerprint: Fingerprint,
        kind: Kind,
        recall: float | None,
        mapped: bool = False,
        place: Place | None = None,
    ) -> None:
        self._index = index
        self._place = place  # that it was read from
        self._mapped = mapped  # the index lies in a file and is read-only
        self.items = items
        self.fingerprint = fingerprint
        self.kind = kind
        self.recall = recall

    @classmethod
    def build(
        cls,
        embeddings: Embeddings,
        *,
        kind: Literal["auto"] | Kind = "auto",
        memory_limit: float = MEMORY_LIMIT,
        probes: int = PROBES,
    ) -> Gallery:
        """Makes a gallery of images with their vectors, which are read in chunks.

        Args:
            embeddings: At least one image.
            kind: Of the index; `auto` is the first of `flat`, `ivfsq` and `ivfpq` that keeps the
                vectors in `memory_limit`, or else `ivfpq`.
            memory_limit: In GiB.
            probes: Cells that a compressed index compares a query with.

        Raises:
            ValueError: There is no image, one is there twice, or its vector is not normalised; or
                an option is out of range.
            ImportError: FAISS is not installed.
        """
        images, dimension = embeddings.vectors.shape
        if not images:
            raise ValueError("there is no image to build a gallery of")
        check_count("probes", probes)
        if not memory_limit > 0:  # NaN, too
            raise ValueError(f"memory_limit={memory_limit}: must be above 0 GiB; raise it")
        check_paths(embeddings.items)
        if kind == "auto":
            kind = kind_within(memory_limit * 2**30, images, dimension)
        index, recall = (
            (exact_index(embeddings), None)
            if kind == "flat"
            else compressed_index(embeddings, kind, probes=probes)
        )
        return cls(index, _numbered(embeddings.items, 0), embeddings.fingerprint, kind, recall)

    def __len__(self) -> int:
        return len(self.items)

    @property
    def dimension(self) -> int:
        """Of the vectors, D."""
        return int(self._index.d)

    def add(self, embeddings: Embeddings) -> None:
        """Adds images with their vectors.

        Raises:
            ValueError: The vectors are of another model, or an image is in the gallery already.
        """
        self.check(embeddings.fingerprint, "the vectors to add")
        check_paths(embeddings.items)
        paths = embeddings.items["path"]
        known = pc.filter(paths, pc.is_in(paths, self.items["path"]))
        if len(known):
            raise ValueError(f"in the gallery already: {_first(known)}; remove it first")
        self._own()
        first = 1 + (pc.max(self.items["id"]).as_py() if len(self) else -1)
        add_vectors(self._index, embeddings, first)
        self.items = pa.concat_tables([self.items, _numbered(embeddings.items, first)])

    def remove(self, paths: Collection[str]) -> None:
        """Removes images by their paths.

        Raises:
            ValueError: A path is not in the gallery.
        """
        try:
            wanted = pa.array(list(paths), pa.string())
        except UnicodeEncodeError as error:  # no gallery holds such a name
            raise ValueError(f"not in the gallery: {error.object!a}") from error
        unknown = pc.filter(wanted, pc.invert(pc.is_in(wanted, self.items["path"])))
        if len(unknown):
            raise ValueError(f"not in the gallery: {_first(unknown)}")
        gone = pc.is_in(self.items["path"], wanted)
        self._own()
        self._index.remove_ids(self.items.filter(gone)["id"].to_numpy())
        self.items = self.items.filter(pc.invert(gone))

    def search(
        self,
        vectors: Tensor,
        k: int = 10,
        *,
        weights: Sequence[float] | None = None,
        rerank: bool = False,
        candidates: int = CANDIDATES,
        without_cameras: Collection[int] = (),
    ) -> Matches:
        """Finds the k images of the gallery most similar to each query, all if it has fewer.

        Args:
            vectors: L2-normalised, of this gallery's fingerprint, (Q, D).
            k: At least 1.
            weights: Of the branches that the vectors are joined of: the global feature (of `both`)
                and each part, top to bottom; only their ratios count. None weighs all the same.
            rerank: Order what is found by the neighbours that query and images share
                (k-reciprocal re-ranking, `rerank_distance`, among the candidates alone).
            candidates: Images that are re-ranked, the most similar ones; k if that is more.
            without_cameras: Leave out the images of these cameras.

        Raises:
            ValueError: The gallery is empty, of these cameras alone, or of the global feature where
                weights are given; or the vectors have another size or are not normalised.
        """
        if not len(self):
            raise ValueError("the gallery is empty: add images to it")
        check_features(vectors, "vectors")
        check_count("k", k)
        check_count("candidates", candidates)
        if vectors.shape[1] != self.dimension:
            raise ValueError(
                f"vectors of {vectors.shape[1]} dimensions, but the gallery's have "
                f"{self.dimension}: embed the queries with its model"
            )
        shares = torch.ones(1)  # of the vectors as one branch
        if weights is not None:
            shares = branch_shares(weights, self.fingerprint.features, self.dimension)
        ids = self._ids_without(without_cameras) if without_cameras else None
        wanted = min(max(k, candidates) if rerank else k, len(self) if ids is None else len(ids))
        queries = vectors.detach().float().cpu().contiguous()
        # The product with a query so scaled is the weighted mean, so that all images are compared.
        scaled = scale_branches(queries, shares * len(shares))
        similarity, found = search_index(self._index, scaled.numpy(), wanted, ids)
        rows = np.searchsorted(self.items["id"].to_numpy(), found)  # ids ascend
        rows[found < 0], similarity[found < 0] = -1, -1
        matches = Matches(torch.from_numpy(similarity), torch.from_numpy(rows))
        return self._rerank(queries, matches, shares, k) if rerank else matches

    def _rerank(self, queries: Tensor, found: Matches, shares: Tensor, k: int) -> Matches:
        """Orders what was found anew, and keeps the first k."""
        distance = torch.ones_like(found.similarity)  # of none, the farthest
        for number, (query, rows) in enumerate(zip(queries, found.rows, strict=True)):
            rows = rows[rows >= 0]
            if len(rows):
                distance[number, : len(rows)] = rerank(query, self.vectors(rows), shares)
        order = distance.argsort(dim=1, stable=True)[:, :k]
        similarity, rows, distance = (
            column.gather(1, order) for column in (found.similarity, found.rows, distance)
        )
        return Matches(similarity, rows, distance)

    def _ids_without(self, cameras: Collection[int]) -> NDArray[np.int64]:
        """Lists the ids of the images of all other cameras, known or not."""
        known = self.items["camera_id"].unique().drop_null().to_pylist()
        given = f"without_cameras={sorted(cameras)}"
        if not known:
            raise ValueError(f"{given}: the gallery's images have no camera ids")
        if strangers := sorted({*cameras} - {*known}):
            raise ValueError(
                f"{given}: the gallery has no image of {strangers}, but of cameras {sorted(known)}"
            )
        left_out = pc.is_in(self.items["camera_id"], pa.array(cameras, pa.int64()))
        left = self.items["id"].filter(pc.invert(left_out)).to_numpy()
        if not len(left):
            raise ValueError(f"{given}: leaves no image to search; leave out fewer")
        return cast(NDArray[np.int64], left)

    def vectors(self, rows: Tensor) -> Tensor:
        """Returns the vectors of rows (n,), (n, D); of a compressed index, what its codes keep."""
        numbers = rows.numpy()
        ids = self.items["id"].to_numpy()[numbers]
        return torch.from_numpy(read_vectors(self._index, numbers, ids))

    def sample(self, row: int) -> Sample:
        """Returns the image of a row."""
        item = self.items.slice(row, 1).to_pylist()[0]
        ids = (item["person_id"], item["camera_id"])
        return Sample(item["path"], *(UNKNOWN if number is None else number for number in ids))

    def check(self, fingerprint: Fingerprint, what: str) -> None:
        """Checks that vectors can be compared with those of the gallery.

        Raises:
            ValueError: They are made with other weights, features or preprocessing.
        """
        difference = fingerprint.difference(self.fingerprint)
        if difference:
            raise ValueError(
                f"the gallery's vectors are of {difference} than {what}: use the checkpoint that "
                "they were made with, or build the gallery anew"
            )

    def save(self, folder: str | Path, *, exclusive: bool = False) -> None:
        """Writes the gallery, in place of one in `folder`: aside, and renamed when whole.

        Args:
            folder: To write.
            exclusive: Take the place of the very gallery that this one was read from, or of none:
                of two processes that change one at once, one is refused.

        Raises:
            FileExistsError: There is a file of that name, or there are other things in `folder`, or
                `exclusive` and another gallery; all are left as they are.
            OSError: The disk is full or the folder cannot be written to.
        """
        forget_places(self._index)
        content = self._index, self.items, self.fingerprint, self.kind, self.recall
        write_gallery(Path(folder), *content, place=self._place, exclusive=exclusive)

    @classmethod
    def load(cls, folder: str | Path) -> Gallery:
        """Opens a gallery; a `flat` index stays on disk and is read as it is searched.

        Raises:
            FileNotFoundError: There is no such folder.
            ValueError: It is no gallery, or not a whole one.
            ImportError: FAISS is not installed.
        """
        folder = Path(folder)
        place = place_of(folder) if folder.is_dir() else None  # before it is read
        try:
            return cls(*read_gallery(folder), place=place)
        except ValueError:
            if not folder.is_dir() or place_of(folder) == place:
                raise
            return cls.load(folder)  # another process changed it while it was read

    def _own(self) -> None:
        """Makes the index one that can be changed: in memory, without notes of places."""
        if self._mapped:
            self._index = in_memory(self._index, self.items["id"].to_numpy())
            self._mapped = False
        forget_places(self._index)


def _numbered(items: pa.Table, first: int) -> pa.Table:
    """Gives images the ids `first`, `first` + 1, ..., in the column `id`."""
    ids = pa.array(np.arange(first, first + len(items)))
    return items.select(ITEMS.names).append_column("id", ids)


def check_paths(items: pa.Table) -> None:
    """Refuses an image that is there twice, as every path names one image."""
    counts = pc.value_counts(items["path"])
    twice = pc.filter(counts.field("values"), pc.greater(counts.field("counts"), 1))
    if len(twice):
        raise ValueError(f"there twice: {_first(twice)}")


def _first(paths: Any) -> str:
    more = f" ({len(paths) - 1} more like it)" if len(paths) > 1 else ""
    return f"{paths[0].as_py()}{more}"
