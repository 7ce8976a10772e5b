"""A gallery with the model that embeds its queries."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from pplr_lightning.data import Sample
from pplr_lightning.data.images import BadImageError
from pplr_lightning.evaluation.embedding import ImageLike
from pplr_lightning.evaluation.extraction import join_features
from pplr_lightning.gallery.branches import CANDIDATES, branch_similarity
from pplr_lightning.gallery.gallery import Gallery
from pplr_lightning.methods import ReIDModule

VECTOR = "the gallery's vector"
FILE = "the image's file as it is now"


class Query(NamedTuple):
    """An embedded image: all its branches, joined as `both`, and as the gallery's vectors are."""

    branches: Tensor
    vector: Tensor


class Hit(NamedTuple):
    """An image that was found.

    Attributes:
        row: Of the gallery.
        sample: The image.
        similarity: Cosine, or weighted mean of the branches' cosines, in [-1, 1].
        distance: By which it was re-ranked, in [0, 1]; None where it was not.
    """

    row: int
    sample: Sample
    similarity: float
    distance: float | None


class Explanation(NamedTuple):
    """How alike a query and an image are, branch by branch.

    Attributes:
        similarity: Cosine in [-1, 1] of the global feature (key `global`) and of each part (`part
            1` is the top stripe); those that are known.
        source: What the image's features were taken from.
    """

    similarity: dict[str, float]
    source: str


class SearchEngine:
    """Searches a gallery for images, and tells why it found what it found.

    Args:
        gallery: Holds an image at least.
        module: Embedded the gallery's images; gets their preprocessing.
        name: What messages call the module.

    Attributes:
        branches: Names of the module's branches, as in `Explanation`.
        weighted: Names of those that the gallery's vectors hold and `search` can weigh; none where
            that is the global feature alone.
        cameras: Of the gallery's images, as far as they are known.

    Raises:
        ValueError: The gallery is empty, or its vectors are of another model.
    """

    def __init__(self, gallery: Gallery, module: ReIDModule, *, name: str = "the module") -> None:
        if not len(gallery):
            raise ValueError("the gallery is empty: add images to it")
        # As the gallery's images were, whatever size its user chose for them.
        module.preprocessing = gallery.fingerprint.preprocessing
        features = gallery.fingerprint.features
        gallery.check(module.fingerprint(kind=features), f"those of {name}")
        self.gallery = gallery
        self.module = module
        parts = [f"part {number}" for number in range(1, 1 + module.network.num_parts)]
        self.branches = ["global", *parts]
        self.weighted = {"global": [], "parts": parts, "both": self.branches}[features]
        known = gallery.items["camera_id"].unique().drop_null().to_pylist()
        self.cameras: list[int] = sorted(known)

    @classmethod
    def load(cls, index: str | Path, checkpoint: str | Path) -> SearchEngine:
        """Opens a gallery and the checkpoint that its images were embedded with.

        Raises:
            FileNotFoundError: One of them is not there.
            ValueError: One of them is broken, the gallery is empty or of another model, or the
                checkpoint holds more than tensors and values.
            ImportError: FAISS is not installed.
        """
        gallery = Gallery.load(index)
        if not len(gallery):
            raise ValueError(
                f"{index}: the gallery is empty: add images to it with index --index {index} --add"
            )
        engine = cls(gallery, ReIDModule.load_from_checkpoint(checkpoint), name=str(checkpoint))
        engine.module.to("cuda" if torch.cuda.is_available() else "cpu")
        return engine

    def embed(self, image: ImageLike) -> Query:
        """Embeds an image to search for.

        Raises:
            ValueError: It is no image.
        """
        joined = self.module.embed(image, kind="both")[0]
        branches = (joined * len(self.branches) ** 0.5).view(len(self.branches), -1)
        kind = self.gallery.fingerprint.features
        vector = join_features(branches[:1], branches[1:].T[None], kind)
        return Query(joined, vector[0])

    def search(
        self,
        query: Query,
        k: int = 10,
        *,
        weights: Sequence[float] | None = None,
        rerank: bool = False,
        candidates: int = CANDIDATES,
        without_cameras: Sequence[int] = (),
    ) -> list[Hit]:
        """Finds the k images most similar to a query, as `Gallery.search` does.

        Raises:
            ValueError: As `Gallery.search`; or there is not a weight for each of `weighted`.
        """
        self.check_weights(weights)
        found = self.gallery.search(
            query.vector[None],
            k,
            weights=weights,
            rerank=rerank,
            candidates=candidates,
            without_cameras=without_cameras,
        )
        rows, similarity = found.rows[0].tolist(), found.similarity[0].tolist()
        distance = [None] * len(rows) if found.distance is None else found.distance[0].tolist()
        return [
            Hit(row, self.gallery.sample(row), *scores)
            for row, *scores in zip(rows, similarity, distance, strict=True)
            if row >= 0
        ]

    def check_weights(self, weights: Sequence[float] | None) -> None:
        """Checks that there is a weight for each of `weighted`, or that there are none.

        Raises:
            ValueError: There are more or fewer.
        """
        if weights is not None and self.weighted and len(weights) != len(self.weighted):
            raise ValueError(
                f"{len(weights)} weights {list(weights)}: give {len(self.weighted)}, of "
                f"{', '.join(self.weighted)}"
            )

    def explain(self, query: Query, row: int) -> Explanation:
        """Compares a query with an image of the gallery, branch by branch.

        The gallery's own vector serves where it holds all branches as they were; else the image's
        file is embedded anew. Where that is gone, what the vector holds has to do.
        """
        gallery = self.gallery
        held = self.weighted or ["global"]
        if held == self.branches and gallery.kind == "flat":
            return _compare(query.vector, gallery.vectors(torch.tensor([row])), held, VECTOR)
        try:
            vectors = self.module.embed(gallery.sample(row).path, kind="both")
        except (BadImageError, OSError):
            vectors = gallery.vectors(torch.tensor([row]))
            rough = "" if gallery.kind == "flat" else ", compressed and so approximate"
            source = f"{VECTOR}{rough}; the file cannot be read"
            return _compare(query.vector, vectors, held, source)
        return _compare(query.branches, vectors, self.branches, FILE)


def _compare(query: Tensor, vectors: Tensor, names: list[str], source: str) -> Explanation:
    similarity = branch_similarity(query, vectors, len(names))[0].tolist()
    return Explanation(dict(zip(names, similarity, strict=True)), source)
