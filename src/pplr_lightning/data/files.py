"""Files of a data set: which are images, where a name leads, and text."""

from __future__ import annotations

import os
from pathlib import Path, PurePosixPath

from lightning.pytorch.utilities import rank_zero_warn
from torchvision.datasets.folder import IMG_EXTENSIONS


def read_utf8(path: Path) -> str:
    """Reads a text file, with a byte order mark or without.

    Raises:
        ValueError: It is of another encoding.
    """
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: is no UTF-8 ({error.reason}); save it as UTF-8") from error


def is_below(name: str) -> bool:
    """Tells whether a name leads nowhere but below the folder that it is relative to.

    Example:
        >>> [is_below(name) for name in ("0001/a.jpg", "../a.jpg", "/a.jpg", "")]
        [True, False, False, False]
    """
    path = PurePosixPath(name)
    return bool(path.parts) and not path.is_absolute() and ".." not in path.parts


def find_images(root: Path) -> list[Path]:
    """Lists the image files below `root`, recursively, sorted by path.

    Links are followed. Hidden files and folders, whose names begin with a dot, hold no images; nor
    does a folder that was read before under another name, which a warning says.

    Raises:
        FileNotFoundError: `root` is no folder.
        OSError: A folder cannot be read.
        ValueError: There is no image below `root`.
    """
    if not root.is_dir():
        raise FileNotFoundError(f"{root}: no such folder; set the data set's root to where it is")

    def fail(error: OSError) -> None:
        raise error

    read: dict[str, str] = {}
    images = []
    for folder, folders, files in os.walk(root, followlinks=True, onerror=fail):
        first = read.setdefault(os.path.realpath(folder), folder)
        if first != folder:
            rank_zero_warn(f"{folder} leads to {first}, which is read already: it is left out")
            folders.clear()
            continue
        # What is reached by a link comes last, for it may lie here under its own name.
        folders[:] = sorted(
            (name for name in folders if not name.startswith(".")),
            key=lambda name: (os.path.islink(os.path.join(folder, name)), name),
        )
        images += [
            Path(folder, name)
            for name in files
            if Path(name).suffix.lower() in IMG_EXTENSIONS and not name.startswith(".")
        ]
    if not images:
        endings = ", ".join(IMG_EXTENSIONS)
        raise ValueError(f"{root}: the folder holds no image (looked for {endings})")
    return sorted(images)
