"""A gallery: images that can be searched, in memory and on disk."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from torch import Tensor

from pplr_lightning.data.datasets import UNKNOWN, Sample
from pplr_lightning.functional.checks import check_count, check_features
from pplr_lightning.functional.engines import require_faiss
from pplr_lightning.gallery.embeddings import ITEMS, Embeddings
from pplr_lightning.gallery.files import StoredGallery, read_gallery, write_gallery
from pplr_lightning.gallery.index import (
    PURPOSE,
    add_vectors,
    compressed_index,
    exact_index,
)
from pplr_lightning.recipe import Recipe

MEMORY_LIMIT = 16.0  # GiB of vectors up to which `auto` searches them all


class Matches(NamedTuple):
    """What a search found for Q queries, the most similar first.

    Attributes:
        similarity: Cosines in [-1, 1], (Q, k); approximate where the index is `ivfpq`.
        rows: Rows of the gallery's `items`, (Q, k); -1 behind the last where fewer were found.
    """

    similarity: Tensor
    rows: Tensor


class Gallery:
    """Images with their vectors in a FAISS index; `Gallery.build` and `Gallery.load` make one.

    Attributes:
        items: A table of the images: `path`, `person_id` and `camera_id` (null if not known), and
            the `id` under which the index holds each.
        recipe: What the vectors were made with. Vectors of another one are refused.
        kind: `flat` compares a query with every vector; `ivfpq` holds codes of D/4 bytes or less
            and compares it with some.
        recall: recall@10 of `ivfpq` when it was built; None for `flat`, which is exact.
    """

    def __init__(
        self, index: Any, items: pa.Table, recipe: Recipe, kind: str, recall: float | None
    ) -> None:
        self._index = index
        self._mapped: Path | None = None  # the file that a read-only index lies in
        self.items = items
        self.recipe = recipe
        self.kind = kind
        self.recall = recall

    @classmethod
    def build(
        cls,
        embeddings: Embeddings,
        *,
        kind: Literal["auto", "flat", "ivfpq"] = "auto",
        memory_limit: float = MEMORY_LIMIT,
        probes: int = 64,
    ) -> Gallery:
        """Makes a gallery of images with their vectors, which are read in chunks.

        Args:
            embeddings: At least one image.
            kind: Of the index; `auto` is `flat` for vectors of up to `memory_limit`, and `ivfpq`
                for more.
            memory_limit: In GiB.
            probes: Cells that `ivfpq` compares a query with.

        Raises:
            ValueError: There is no image, one is there twice, or its vector is not normalised.
            ImportError: FAISS is not installed.
        """
        images, dimension = embeddings.vectors.shape
        if not images:
            raise ValueError("there is no image to build a gallery of")
        check_count("probes", probes)
        _check_paths(embeddings.items, None)
        if kind == "auto":
            kind = "flat" if 4 * images * dimension <= memory_limit * 2**30 else "ivfpq"
        index, recall = (
            (exact_index(embeddings), None)
            if kind == "flat"
            else compressed_index(embeddings, probes=probes)
        )
        return cls(index, _numbered(embeddings.items, 0), embeddings.recipe, kind, recall)

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
        self.check(embeddings.recipe, "the vectors to add")
        _check_paths(embeddings.items, self.items)
        self._own()
        first = 1 + (pc.max(self.items["id"]).as_py() if len(self) else -1)
        add_vectors(self._index, embeddings, first)
        self.items = pa.concat_tables([self.items, _numbered(embeddings.items, first)])

    def remove(self, paths: Collection[str]) -> None:
        """Removes images by their paths.

        Raises:
            ValueError: A path is not in the gallery.
        """
        wanted = pa.array(list(paths), pa.string())
        unknown = pc.filter(wanted, pc.invert(pc.is_in(wanted, self.items["path"])))
        if len(unknown):
            raise ValueError(f"not in the gallery: {_first(unknown)}")
        self._own()
        gone = pc.is_in(self.items["path"], wanted)
        self._index.remove_ids(self.items.filter(gone)["id"].to_numpy())
        self.items = self.items.filter(pc.invert(gone))

    def search(self, vectors: Tensor, k: int = 10) -> Matches:
        """Finds the k images of the gallery most similar to each query, all if it has fewer.

        Args:
            vectors: L2-normalised, of this gallery's recipe, (Q, D).
            k: At least 1.

        Raises:
            ValueError: The gallery is empty, or the vectors have another size or are not
                normalised.
        """
        if not len(self):
            raise ValueError("the gallery is empty: add images to it")
        check_features(vectors, "vectors")
        check_count("k", k)
        if vectors.shape[1] != self.dimension:
            raise ValueError(
                f"vectors of {vectors.shape[1]} dimensions, but the gallery's have "
                f"{self.dimension}: embed the queries with its model"
            )
        queries = vectors.detach().float().cpu().contiguous().numpy()
        similarity, ids = self._index.search(queries, min(k, len(self)))
        rows = np.searchsorted(self.items["id"].to_numpy(), ids)  # ids ascend
        rows[ids < 0] = -1
        return Matches(torch.from_numpy(similarity), torch.from_numpy(rows))

    def sample(self, row: int) -> Sample:
        """Returns the image of a row."""
        item = self.items.slice(row, 1).to_pylist()[0]
        ids = (item["person_id"], item["camera_id"])
        return Sample(item["path"], *(UNKNOWN if number is None else number for number in ids))

    def check(self, recipe: Recipe, what: str) -> None:
        """Checks that vectors can be compared with those of the gallery.

        Raises:
            ValueError: They are made with another recipe.
        """
        difference = recipe.difference(self.recipe)
        if difference:
            raise ValueError(
                f"the gallery's vectors are of {difference} than {what}: use the checkpoint that "
                "they were made with, or build the gallery anew"
            )

    def save(self, folder: str | Path) -> None:
        """Writes the gallery, in place of what is in `folder`: aside, and renamed when whole."""
        stored = StoredGallery(self._index, self.items, self.recipe, self.kind, self.recall)
        write_gallery(Path(folder), stored)

    @classmethod
    def load(cls, folder: str | Path) -> Gallery:
        """Opens a gallery; a `flat` index stays on disk and is read as it is searched.

        Raises:
            FileNotFoundError: There is no such folder.
            ValueError: It is no gallery, or not a whole one.
            ImportError: FAISS is not installed.
        """
        stored = read_gallery(Path(folder))
        gallery = cls(stored.index, stored.items, stored.recipe, stored.kind, stored.recall)
        gallery._mapped = stored.mapped
        return gallery

    def _own(self) -> None:
        """Reads an index that is mapped from a file into memory; FAISS cannot change it there."""
        if self._mapped is not None:
            self._index = require_faiss(PURPOSE).read_index(str(self._mapped))
            self._mapped = None


def _numbered(items: pa.Table, first: int) -> pa.Table:
    ids = pa.array(np.arange(first, first + len(items)))
    return pa.table([*(items[name] for name in ITEMS.names), ids], names=[*ITEMS.names, "id"])


def _check_paths(new: pa.Table, old: pa.Table | None) -> None:
    """Refuses an image that is there twice, as every path names one image."""
    counts = pc.value_counts(new["path"])
    twice = pc.filter(counts.field("values"), pc.greater(counts.field("counts"), 1))
    if len(twice):
        raise ValueError(f"there twice: {_first(twice)}")
    if old is None:
        return
    known = pc.filter(new["path"], pc.is_in(new["path"], old["path"]))
    if len(known):
        raise ValueError(f"in the gallery already: {_first(known)}; remove it first")


def _first(paths: Any) -> str:
    more = f" ({len(paths) - 1} more like it)" if len(paths) > 1 else ""
    return f"{paths[0].as_py()}{more}"
