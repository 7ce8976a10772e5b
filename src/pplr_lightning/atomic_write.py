"""Files and folders that are written whole or not at all."""

from __future__ import annotations

import fcntl
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from secrets import token_hex


@contextmanager
def written_whole(
    path: Path, *, folder: bool = False, synced: bool = False, one_of_many: bool = False
) -> Iterator[Path]:
    """Makes a new file or folder beside `path` that takes its place at the end.

    What stood there before is whole, whatever happens. The new one's name is of chance, and refused
    if it is taken: nobody who may write there can have planted a link for us to follow. It is
    locked as long as it is written: one that a killed process left is not, and is removed.

    Args:
        path: Of what is written; the folders above it are made.
        folder: It is a folder; what then stands at `path` must be empty or gone by the end.
        synced: Have the content reach the disk before the name does: a power cut may else keep the
            name and lose the content.
        one_of_many: Leave what killed writers have left, to `clear_left_over` of the whole folder:
            it is found by listing the folder, which for each of many files would take long.

    Yields:
        Where to write. Removed, if the writing fails.

    Raises:
        OSError: The disk is full or the folder cannot be written to; names `path`.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if not one_of_many:
            clear_left_over(path.parent, path.name)
        aside, held = _made_aside(path, folder=folder)
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
        if held is not None:
            os.close(held)


def _made_aside(path: Path, *, folder: bool) -> tuple[Path, int | None]:
    """Makes what is written beside `path`, and locks it."""
    while True:
        aside = path.with_name(f"{path.name}.{token_hex(8)}.part")
        if folder:
            aside.mkdir()
        else:
            aside.touch(exist_ok=False)  # exclusive, of the permissions of any new file
        with suppress(BlockingIOError):
            held = _lock(aside)
            if aside.exists():
                return aside, held
            if held is not None:
                os.close(held)
        # Another process took it for left over before it was locked.


def clear_left_over(folder: Path, name: str | None = None) -> None:
    """Removes what writers that were killed have left in a folder.

    Args:
        folder: In which they wrote.
        name: Of the file or folder that they wrote; all that lie there or deeper if None.
    """
    left_over = re.compile((".*" if name is None else re.escape(name)) + r"\.[0-9a-f]{16}\.part")
    for root, folders, files in os.walk(folder):
        for found in filter(left_over.fullmatch, (*folders, *files)):
            remove_left_over(Path(root, found))
        if name is not None:
            return


def remove_left_over(path: Path) -> None:
    """Removes a file or folder that no living process has locked; else leaves it."""
    with suppress(BlockingIOError), locked(path) as held:
        if held and path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        elif held:
            path.unlink(missing_ok=True)


@contextmanager
def locked(path: Path, *, wait: bool = False) -> Iterator[bool]:
    """Locks a file or folder, which it then may be called by another name.

    Args:
        path: Of it; a link is not followed.
        wait: For another process to unlock it.

    Yields:
        Whether it is locked; not where it is gone, or the file system has no locks.

    Raises:
        BlockingIOError: Another process has locked it.
    """
    descriptor = _lock(path, wait=wait)
    try:
        yield descriptor is not None
    finally:
        if descriptor is not None:
            os.close(descriptor)


def _lock(path: Path, *, wait: bool = False) -> int | None:
    """Locks as `locked` until the descriptor is closed or the process ends; None where not."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except OSError as error:
        os.close(descriptor)
        if isinstance(error, BlockingIOError):
            raise
        return None
    return descriptor


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
