"""What the page shows, as HTML: the images found, and why one of them was.

Pictures are inside it, so that no file of the gallery has an address.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence

from jinja2 import Environment, PackageLoader, StrictUndefined
from PIL import Image

from pplr_lightning.data import Sample
from pplr_lightning.data.images import BadImageError, read_image
from pplr_lightning.gallery import Explanation, Hit

BOX = (160, 320)  # pixels, width and height of a picture


def as_uri(image: Image.Image) -> str:
    """Writes an image, no larger than `BOX`, as a `data:` address."""
    small = image.convert("RGB")
    small.thumbnail(BOX)
    file = io.BytesIO()
    small.save(file, "JPEG", quality=88)
    return "data:image/jpeg;base64," + base64.b64encode(file.getvalue()).decode()


def file_uri(path: str) -> str | None:
    """Writes an image file as a `data:` address; None where it cannot be read."""
    try:
        return as_uri(read_image(path))
    except (BadImageError, OSError):
        return None


def _ids(sample: Sample) -> list[str]:
    ids = (("camera", sample.camera_id), ("person", sample.person_id))
    return [f"{name} {number}" for name, number in ids if number >= 0]


TEMPLATES = Environment(
    loader=PackageLoader("pplr_lightning.serving"),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
TEMPLATES.filters.update(file_uri=file_uri, ids=_ids)


def hits_view(hits: Sequence[Hit], *, summary: str) -> str:
    """Draws what was found, each image a button that carries its place in the list.

    Args:
        hits: In their order.
        summary: Said above them.
    """
    return TEMPLATES.get_template("hits.html.jinja").render(hits=hits, summary=summary)


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
    return TEMPLATES.get_template("why.html.jinja").render(
        query=query,
        hit=hit,
        rank=rank,
        explanation=explanation,
        branches=branches,
        score=score,
        shape=shape,
    )
