"""Small text files, written whole or not at all."""

from __future__ import annotations

from pathlib import Path


def write_whole(file: Path, text: str) -> Path:
    """Writes UTF-8 aside and renames it: what stood there before is whole, whatever happens.

    Returns:
        The file.

    Raises:
        OSError: The disk is full or the folder cannot be written to.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    aside = file.with_name(f"{file.name}.part")
    try:
        aside.write_text(text, encoding="utf-8")
        aside.replace(file)
    finally:
        aside.unlink(missing_ok=True)
    return file
