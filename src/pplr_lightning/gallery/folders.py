"""A gallery on disk: a folder of an index, a table of images and a record of both."""

from __future__ import annotations

import glob
import json
import os
import shutil
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from pplr_lightning.atomic_write import written_whole
from pplr_lightning.evaluation.fingerprint import Fingerprint
from pplr_lightning.functional.engines import require_faiss
from pplr_lightning.gallery.embeddings import ITEMS
from pplr_lightning.gallery.faiss_index import PURPOSE, Kind

FORMAT = 1  # of the folder
FILES = ("index.faiss", "items.parquet", "meta.json")


class StoredGallery(NamedTuple):
    """What the folder holds.

    Attributes:
        index: Of FAISS.
        items: Its images, a table with the columns of `ITEMS` and `id`.
        fingerprint: What the vectors were made with.
        kind: Of the index.
        recall: recall@10 of a compressed one.
        mapped: Whether the index, read-only, is mapped from its file.
    """

    index: Any
    items: pa.Table
    fingerprint: Fingerprint
    kind: Kind
    recall: float | None
    mapped: bool = False


def check_folder(folder: Path) -> None:
    """Checks that a gallery may take the place of what is in a folder.

    Raises:
        FileExistsError: There is a file of that name, or other things than a gallery in it.
    """
    if not folder.exists():
        return
    others = [] if folder.is_file() else sorted({path.name for path in folder.iterdir()} - {*FILES})
    if folder.is_file() or others:
        holds = f"holds {', '.join(others[:3])}, which are" if others else "is a file,"
        raise FileExistsError(f"{folder} {holds} not a gallery's: name another folder")


def write_gallery(folder: Path, stored: StoredGallery) -> None:
    """Writes a folder aside, and gives it its name when it is whole.

    Raises:
        FileExistsError: As of `check_folder`.
    """
    folder = folder.resolve()
    check_folder(folder)
    old = folder.with_name(f"{folder.name}.{os.getpid()}.old")
    content = {
        "format": FORMAT,
        "kind": stored.kind,
        "images": len(stored.items),
        "recall": stored.recall,
        "fingerprint": json.loads(stored.fingerprint.to_json()),
    }
    with written_whole(folder, folder=True, synced=True) as aside:
        index, items, meta = (aside / name for name in FILES)
        require_faiss(PURPOSE).write_index(stored.index, str(index))
        pq.write_table(stored.items, items)
        meta.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
        if folder.exists():
            folder.rename(old)
    shutil.rmtree(old, ignore_errors=True)


def read_gallery(folder: Path) -> StoredGallery:
    """Opens a folder; a `flat` index is mapped from its file where FAISS can do that.

    Raises:
        FileNotFoundError: There is no such folder.
        ValueError: It is no gallery, or not a whole one.
        ImportError: FAISS is not installed.
    """
    faiss = require_faiss(PURPOSE)
    if not folder.is_dir():
        old = sorted(folder.parent.glob(f"{glob.escape(folder.name)}.[0-9]*.old"))
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
        items = pq.read_table(items_path)
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
    return StoredGallery(index, items, fingerprint, kind, recall, mapped=bool(mapping))
