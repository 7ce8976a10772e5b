"""The ranking lists of a few queries, to look at."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class Ranking(NamedTuple):
    """What a query finds first.

    Attributes:
        name: Which query this is among the others: `best`, `median` or `worst`.
        query: Its place among the queries.
        gallery: Places of the nearest gallery images, nearest first, none of them left out.
        average_precision: Of the query, in [0, 1].
    """

    name: str
    query: int
    gallery: list[int]
    average_precision: float


@torch.no_grad()
def example_rankings(
    queries: Tensor,
    gallery: Tensor,
    average_precision: Tensor,
    counted: Tensor,
    *,
    length: int = 10,
) -> list[Ranking]:
    """Ranks the gallery for the best, the median and the worst query.

    Args:
        queries: L2-normalised features, (Q, D).
        gallery: Likewise, (G, D).
        average_precision: Of each query, (Q,).
        counted: Whether a query has a match at all, (Q,) bool.
        length: Gallery images of a list, fewer where there are fewer.

    Returns:
        Three rankings; fewer where fewer queries are counted.
    """
    found = counted.nonzero()[:, 0]
    by_precision = average_precision[found].argsort(descending=True, stable=True)
    order: list[int] = found[by_precision].tolist()
    if not order:
        return []
    chosen: dict[int, str] = {}
    for place, name in ((0, "best"), (len(order) - 1, "worst"), (len(order) // 2, "median")):
        chosen.setdefault(place, name)  # where there are fewer than three queries
    return [
        Ranking(
            name=name,
            query=order[place],
            gallery=_nearest(queries[order[place]], gallery, length),
            average_precision=float(average_precision[order[place]]),
        )
        for place, name in sorted(chosen.items())
    ]


def _nearest(query: Tensor, gallery: Tensor, length: int) -> list[int]:
    return (gallery @ query).argsort(descending=True, stable=True)[:length].tolist()
