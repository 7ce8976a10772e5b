"""What the page shows, as HTML: the images found, and why one of them was."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from jinja2 import Environment, PackageLoader, StrictUndefined

from pplr_lightning.gallery import Explanation, Hit
from pplr_lightning.serving.pictures import file_uri

TEMPLATES = Environment(
    loader=PackageLoader("pplr_lightning.serving"),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)


class Bar(NamedTuple):
    """A cosine as the page shows it.

    Attributes:
        name: Of the branch.
        text: The cosine; `?` where it is not known.
        width: Of the bar, in percent; a cosine of 0 or less has none.
    """

    name: str
    text: str
    width: float


def hits_view(hits: Sequence[Hit], *, summary: str) -> str:
    """Draws what was found, each image a button that carries its place in the list.

    Args:
        hits: In their order.
        summary: Said above them.
    """
    cards = [
        {
            "picture": file_uri(hit.sample.path),
            "name": Path(hit.sample.path).name,
            "path": hit.sample.path,
            "similarity": f"{hit.similarity:.3f}",
            "distance": None if hit.distance is None else f"{hit.distance:.3f}",
            "ids": _ids(hit),
        }
        for hit in hits
    ]
    return TEMPLATES.get_template("hits.html.jinja").render(cards=cards, summary=summary)


def why_view(
    query: str,
    hit: Hit,
    rank: int,
    explanation: Explanation,
    branches: Sequence[str],
    *,
    score: str,
    shape: str,
) -> str:
    """Draws a query beside an image, in stripes, with the similarity of each.

    Args:
        query: The query's picture, as `as_uri` writes it.
        hit: The image.
        rank: Its place, from 1.
        explanation: Of the two.
        branches: Names of all branches, the global one first.
        score: Says how they make the image's similarity.
        shape: Width and height of what the model sees, as `1 / 2`.
    """
    known = explanation.similarity
    bars = [
        Bar(name, f"{known[name]:.3f}", 100 * min(max(known[name], 0.0), 1.0))
        if name in known
        else Bar(name, "?", 0.0)
        for name in branches
    ]
    return TEMPLATES.get_template("why.html.jinja").render(
        query=query,
        found=file_uri(hit.sample.path),
        path=hit.sample.path,
        rank=rank,
        ids=_ids(hit),
        whole=bars[0],
        parts=bars[1:],
        source=explanation.source,
        score=score,
        shape=shape,
    )


def _ids(hit: Hit) -> list[str]:
    ids = (("camera", hit.sample.camera_id), ("person", hit.sample.person_id))
    return [f"{name} {number}" for name, number in ids if number >= 0]
