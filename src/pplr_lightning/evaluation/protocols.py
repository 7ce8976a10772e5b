"""Which gallery a query is compared with: the protocols of the field's data sets."""

from __future__ import annotations

from collections.abc import Sequence
from typing import get_args

import numpy as np
import torch
from torch import Tensor

from pplr_lightning.data.datasets import Protocol
from pplr_lightning.functional.retrieval import GalleryIndex, summarize_scores

DRAWS = 10  # galleries of a single shot, as of CUHK03 and PRCC


class Galleries:
    """The galleries that a protocol compares each query with.

    `standard` has one: the whole. `single_gallery_shot` has one for each draw: one image of each
    identity, at random; every draw counts as much, and identity 0, a set's distractors, is one
    identity. `camera_pairs` has one for each camera; the metrics are those of the queries of one
    camera in the gallery of one, averaged over all pairs in which a query has a match.

    Args:
        protocol: Which.
        ids: Identities of the whole gallery, -1 is junk, (G,).
        cameras: Cameras, (G,).
        files: Numbers of the images' files, (G,).
        own_only: As of `GalleryIndex`.

    Raises:
        ValueError: There is no such protocol.
    """

    def __init__(
        self,
        protocol: Protocol,
        ids: Tensor,
        cameras: Tensor,
        files: Tensor,
        *,
        own_only: bool = False,
    ) -> None:
        check_protocol(protocol)
        self.protocol = protocol
        everything: list[Tensor | slice] = [slice(None)]
        if protocol == "camera_pairs":
            everything = [(cameras == camera).nonzero()[:, 0] for camera in cameras.unique()]
        draws = range(DRAWS) if protocol == "single_gallery_shot" else [None]
        self._indexes = [
            (
                some,
                GalleryIndex(ids[some], cameras[some], files[some], draw=draw, own_only=own_only),
            )
            for some in everything
            for draw in draws
        ]

    def __len__(self) -> int:
        return len(self._indexes)

    def score(self, distance: Tensor, ids: Tensor, cameras: Tensor, files: Tensor) -> Tensor:
        """Scores some queries in each gallery, (q, n * 4): `GalleryIndex.score` side by side."""
        found = (
            index.score(distance[:, some], ids, cameras, files) for some, index in self._indexes
        )
        return torch.cat(list(found), 1)

    def summarize(self, scores: Tensor, cameras: Tensor, topk: Sequence[int]) -> dict[str, float]:
        """Averages the scores of all queries, (Q, n * 4), whose cameras are given, (Q,).

        Raises:
            ValueError: As of `summarize_scores`.
        """
        each = scores.unflatten(1, (-1, 4))
        whole = summarize_scores(each.flatten(0, 1), topk)
        if self.protocol != "camera_pairs":
            return whole
        pairs = [
            summarize_scores(one, topk)
            for camera in cameras.unique()
            for one in each[(cameras == camera).cpu()].unbind(1)
            if (one[:, 1] > 0).any()
        ]
        return {name: float(np.mean([pair[name] for pair in pairs])) for name in whole}

    def of_queries(self, scores: Tensor) -> tuple[Tensor, Tensor]:
        """Returns each query's mean average precision, and whether it counts, both (Q,)."""
        each = scores.unflatten(1, (-1, 4))
        counted = each[:, :, 1] > 0
        times = counted.sum(1)
        return (each[:, :, 0] * counted).sum(1) / times.clamp(min=1), times > 0


def check_protocol(protocol: str) -> None:
    """Checks a protocol's name.

    Raises:
        ValueError: There is none of this name.
    """
    if protocol not in get_args(Protocol):
        raise ValueError(f"protocol={protocol!r}: choose one of {', '.join(get_args(Protocol))}")
