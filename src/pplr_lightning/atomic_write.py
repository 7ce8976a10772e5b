"""Files and folders that are written whole or not at all."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from secrets import token_hex


@contextmanager
def written_whole(path: Path, *, folder: bool = False, synced: bool = False) -> Iterator[Path]:
    """Makes a new file or folder beside `path` that takes its place at the end.

    What stood there before is whole, whatever happens. The new one's name is of chance, and refused
    if it is taken: nobody who may write there can have planted a link for us to follow.

    Args:
        path: Of what is written; the folders above it are made.
        folder: It is a folder; what then stands at `path` must be empty or gone by the end.
        synced: Have the content reach the disk before the name does: a power cut may else keep the
            name and lose the content.

    Yields:
        Where to write. Removed, if the writing fails.

    Raises:
        OSError: The disk is full or the folder cannot be written to; names `path`.
    """
    aside = path.with_name(f"{path.name}.{token_hex(8)}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if folder:
            aside.mkdir()
        else:
            aside.touch(exist_ok=False)  # exclusive, of the permissions of any new file
    except OSError as error:
        raise _named(error, path) from error
    try:
        yield aside
        for file in (aside.iterdir() if folder else [aside]) if synced else []:
            with file.open("rb") as content:
                os.fsync(content.fileno())
        aside.replace(path)
    except OSError as error:
        raise _named(error, path) from error
    finally:
        if folder:
            shutil.rmtree(aside, ignore_errors=True)
        else:
            aside.unlink(missing_ok=True)


def _named(error: OSError, path: Path) -> OSError:
    """Says which file could not be written, and why, in an error of the same class."""
    reason = error.strerror or str(error)
    return type(error)(f"{path}: cannot be written ({reason})")


def write_whole(path: Path, text: str) -> Path:
    """Writes UTF-8 whole or not at all, as `written_whole`, and returns the file.

    What has no UTF-8, such as half a character of a file's name, is written as its number.
    """
    with written_whole(path) as aside:
        aside.write_text(text, encoding="utf-8", errors="backslashreplace")
    return path
