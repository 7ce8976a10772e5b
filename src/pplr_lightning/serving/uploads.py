"""What a request may name of this machine's files: what was uploaded, and nothing else."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gradio as gr
from PIL import Image

from pplr_lightning.data.images import BadImageError, read_image

FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF")  # not what others would run, as EPS
MOST_PIXELS = 25_000_000  # 75 MB when decoded; a file of 20 KB can be of 170 million


class TooLargeError(ValueError):
    """An upload has more pixels than are decoded."""


class Page(gr.Blocks):  # type: ignore[misc] # of which mypy knows nothing
    """Gradio's page, which takes from a request nothing that it would read as a file."""

    async def preprocess_data(
        self, block_fn: Any, inputs: list[Any], *others: Any, **options: Any
    ) -> list[Any]:
        """Passes on what a request sends, without files but for the names of those uploaded.

        Gradio copies what any value marks as a file, of this machine or of the web, to where it
        has an address. Its own check of the path works only where it started the server itself.
        """
        values = [
            _as_upload(value) if isinstance(block, gr.Image) else _unmarked(value)
            for block, value in zip(block_fn.inputs, inputs, strict=False)
        ]
        # Too many or too few values are Gradio's to refuse.
        values += inputs[len(values) :]
        return await super().preprocess_data(block_fn, values, *others, **options)


def is_upload(path: str, folder: Path) -> bool:
    """Tells whether a path leads to a file below the folder of uploads, links followed."""
    try:
        file = Path(path).resolve()
        return folder.resolve() in file.parents and file.is_file()
    except (OSError, ValueError):  # no path at all, or one too long
        return False


def read_upload(path: str) -> Image.Image:
    """Decodes an image that was dropped on the page, as RGB.

    Raises:
        BadImageError: It is no image, or a broken one.
        TooLargeError: It has more than `MOST_PIXELS`.
    """
    try:
        with Image.open(path, formats=FORMATS) as image:  # reads its size alone
            width, height = image.size
    except Image.DecompressionBombError as error:
        raise TooLargeError(f"has more than {MOST_PIXELS:,} pixels; drop a smaller one") from error
    except Exception as error:  # as of `read_image`
        raise BadImageError(f"{path}: no image") from error
    if width * height > MOST_PIXELS:
        raise TooLargeError(
            f"{width:,} x {height:,} are more than {MOST_PIXELS:,} pixels; drop a smaller one"
        )
    return read_image(path)


def _as_upload(value: Any) -> dict[str, str] | None:
    """Takes the path and the name of what is sent as an image, empty where there is none."""
    if value is None:
        return None
    given = value if isinstance(value, dict) else {}
    return {
        name: found if isinstance(found := given.get(name), str) else ""
        for name in ("path", "orig_name")
    }


def _unmarked(value: Any) -> Any:
    """Leaves out of nested values what marks one as a file."""
    if isinstance(value, dict):
        return {name: _unmarked(inner) for name, inner in value.items() if name != "meta"}
    return [_unmarked(inner) for inner in value] if isinstance(value, list) else value
