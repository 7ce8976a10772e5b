"""What a request may name of this machine's files: what was uploaded, and nothing else."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gradio as gr


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
