"""Pictures inside the page itself, so that no file of the gallery has an address."""

from __future__ import annotations

import base64
import io

from PIL import Image

from pplr_lightning.data.images import BadImageError, read_image

BOX = (160, 320)  # pixels, width and height


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
    except BadImageError:
        return None
