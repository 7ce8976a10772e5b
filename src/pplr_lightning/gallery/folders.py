"""A gallery on disk: a folder of an index, a table of images and a record of both."""

from __future__ import annotations

import glob
import json
import os
import shutil
from contextlib import suppress
from pathlib import Path
from typing import Any, get_args

import pyarrow as pa
import pyarrow.parquet as pq

from pplr_lightning.atomic_write import locked, remove_left_over, written_whole
from pplr_lightning.evaluation.fingerprint import Fingerprint
from pplr_lightning.functional.engines import require_faiss
from pplr_lightning.gallery.embeddings import ITEMS
from pplr_lightning.gallery.faiss_index import PURPOSE, Kind

FORMAT = 1  # of the folder
Place = tuple[int, int, int]
FILES = ("index.faiss", "items.parquet", "meta.json")


def write_gallery(
    folder: Path,
    index: Any,
    items: pa.Table,
    fingerprint: Fingerprint,
    kind: Kind,
    recall: float | None,
    *,
    place: Place | None,
    exclusive: bool,
) -> None:
    """Writes what makes a `Gallery` into a folder, aside, which takes its name when it is whole.

    Args:
        folder: Of the gallery.
        index: Of FAISS.
        items: The images.
        fingerprint: What the vectors were made with.
        kind: Of the index.
        recall: Of the index.
        place: Of the gallery that this one was read from; None for a new one.
        exclusive: Take the place of that one alone.

    Raises:
        FileExistsError, OSError: As of `Gallery.save`.
    """
    folder = folder.resolve()
    settle(folder)
    if folder.is_file():
        raise FileExistsError(f"{folder} is a file, not a gallery's: name another folder")
    there = {path.name for path in folder.iterdir()} if folder.exists() else set()
    others = sorted(there - {*FILES})
    if others:
        raise FileExistsError(
            f"{folder} holds {', '.join(others[:3])}, which are not a gallery's: name another "
            "folder"
        )
    old = folder.with_name(f"{folder.name}.{os.getpid()}.old")
    content = {
        "format": FORMAT,
        "kind": kind,
        "images": len(items),
        "recall": recall,
        "fingerprint": json.loads(fingerprint.to_json()),
    }
    # Locked, so that nobody puts the old one back while this one takes its place.
    with locked(folder, wait=True), written_whole(folder, folder=True, synced=True) as aside:
        index_path, items_path, meta_path = (aside / name for name in FILES)
        try:
            require_faiss(PURPOSE).write_index(index, str(index_path))
        except RuntimeError as error:  # FAISS's way to say that the disk is full
            raise OSError(_reason(error)) from error
        pq.write_table(items, items_path, write_page_checksum=True)
        meta_path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
        try:
            folder.rename(old)  # of two processes one
            found = place_of(old)
        except FileNotFoundError:
            found = None
        if exclusive and found not in (None, place):
            old.rename(folder)
            raise FileExistsError(
                f"{folder} was changed by another process meanwhile and is left so: start again"
            )
    shutil.rmtree(old, ignore_errors=True)


def _old(folder: Path) -> list[Path]:
    """Lists what stood at `folder` before, of updates that were broken off."""
    return sorted(folder.parent.glob(f"{glob.escape(folder.name)}.[0-9]*.old"))


def settle(folder: Path) -> None:
    """Puts back or removes what an update that was killed has left beside a gallery."""
    put_back(folder)
    for left_over in _old(folder) if folder.exists() else ():
        remove_left_over(left_over)


def put_back(folder: Path) -> None:
    """Puts back what an update that was killed between two names has left of a gallery."""
    for old in reversed(_old(folder)) if not folder.exists() else ():
        # A living update has it locked until it is through.
        with locked(old, wait=True) as held, suppress(OSError):
            if held and not folder.exists():  # where nothing can be written, the user is told
                old.rename(folder)


def place_of(folder: Path) -> Place:
    """Tells a folder from any that takes its name; files of a gallery are never changed in it."""
    found = folder.stat()
    return found.st_dev, found.st_ino, found.st_mtime_ns


def _reason(error: RuntimeError) -> str:
    """Returns what the system said, which FAISS puts in brackets at the end of its own words."""
    text = str(error).strip()
    return text[:-1].rpartition("(")[2] if text.endswith(")") else text.splitlines()[-1]


def read_gallery(folder: Path) -> tuple[Any, pa.Table, Fingerprint, Kind, float | None, bool]:
    """Opens a folder; a `flat` index is mapped from its file where FAISS can do that.

    Returns:
        What was written, and whether the index, read-only, is mapped from its file.

    Raises:
        FileNotFoundError, ValueError, ImportError: As of `Gallery.load`.
    """
    faiss = require_faiss(PURPOSE)
    put_back(folder)
    if not folder.is_dir():
        old = _old(folder)
        hint = f"; an update was broken off, what was there before is {old[-1]}" if old else ""
        raise FileNotFoundError(f"{folder}: no such gallery{hint}")
    missing = [name for name in FILES if not (folder / name).is_file()]
    if missing:
        raise ValueError(f"{folder}: no gallery, or a broken one (no {', '.join(missing)})")
    path, items_path, meta_path = (folder / name for name in FILES)
    try:
        meta = json.loads(meta_path.read_text(encoding="utf-8"))
        fingerprint = Fingerprint.from_json(json.dumps(meta["fingerprint"]))
        kind, recall, images, version = (meta[n] for n in ("kind", "recall", "images", "format"))
        if kind not in get_args(Kind) or not isinstance(recall, float | None):
            raise ValueError(f"kind {kind!r}, recall {recall!r}")
        items = pq.read_table(items_path, page_checksum_verification=True)
        mapping = getattr(faiss, "IO_FLAG_MMAP_IFC", 0) if kind == "flat" else 0
        index = faiss.read_index(str(path), mapping)
    except (ValueError, KeyError, TypeError, pa.ArrowException, OSError, RuntimeError) as error:
        reason = str(error).strip().splitlines()[-1]
        raise ValueError(f"{folder}: a broken gallery ({reason}); build it anew") from error
    if version != FORMAT:
        raise ValueError(f"{folder}: of format {version}, this version reads {FORMAT}")
    names = [*ITEMS.names, "id"]
    if items.column_names != names or {index.ntotal, len(items), images} != {images}:
        raise ValueError(
            f"{folder}: a broken gallery ({index.ntotal} vectors and {len(items)} rows of "
            f"{', '.join(items.column_names)} for {images} images); build it anew"
        )
    return index, items, fingerprint, kind, recall, bool(mapping)
