"""A file of embeddings in the making: parts on disk, so that a run that is killed goes on."""

from __future__ import annotations

import fcntl
import hashlib
import json
import math
import shutil
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import KW_ONLY, dataclass
from pathlib import Path
from typing import IO

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from numpy.typing import NDArray

from pplr_lightning.atomic_write import write_whole, written_whole
from pplr_lightning.data import Sample
from pplr_lightning.evaluation.fingerprint import Fingerprint
from pplr_lightning.functional.checks import check_finite
from pplr_lightning.gallery.embeddings import (
    as_column,
    as_vectors,
    check_names,
    items_table,
    read_embeddings,
    write_parts,
)

RECORD, LOCK = "run.json", "lock"  # beside the parts


@dataclass(eq=False, repr=False)
class EmbeddingParts:
    """The blocks of an embeddings file, each a file in `<file>.parts` until all are done.

    What is in the folder is whole: every file is written aside and renamed. Any rank writes any
    block, and which images a block holds does not depend on the number of ranks.

    Args:
        path: The embeddings file.
        samples: All N images.
        fingerprint: What the vectors are made with.
        block_size: Images of a block.
        precision: Of the Trainer that computes them, which a run that goes on must share.

    Raises:
        ValueError: The folder holds parts of another run, or a path cannot be written.
    """

    path: Path
    samples: Sequence[Sample]
    fingerprint: Fingerprint
    _: KW_ONLY
    block_size: int
    precision: str

    def __post_init__(self) -> None:
        self._lock: IO[str] | None = None
        check_names(self.samples)  # which else would come out when all are embedded
        self.folder = self.path.with_name(f"{self.path.name}.parts")
        if self.folder.is_symlink():  # of somebody who would have us write elsewhere
            raise ValueError(f"{self.folder}: is a link; remove it, or write to another file")
        record = self.folder / RECORD
        images = hashlib.sha256(json.dumps(list(self.samples)).encode()).hexdigest()
        own = {
            "fingerprint": self.fingerprint.to_json(),
            "images": images,
            "block_size": self.block_size,
            "precision": self.precision,
        }
        if not record.is_file():
            for part in self.folder.glob("*.parquet"):  # of whom, nobody knows
                part.unlink(missing_ok=True)
            write_whole(record, json.dumps(own))  # by several ranks at once, the same content
            return
        try:
            found = json.loads(record.read_text(encoding="utf-8"))
            if found == own:
                return
            reasons = [self.fingerprint.difference(Fingerprint.from_json(found["fingerprint"]))]
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(
                f"{record}: damaged ({type(error).__name__}: {error}); remove that folder to start "
                "anew, or write to another file"
            ) from error
        if found.get("images") != images:
            reasons.append("other images")
        for key, name in (("block_size", "batch size"), ("precision", "precision")):
            if found.get(key) != own[key]:  # an older version recorded no precision
                reasons.append(f"another {name} ({found.get(key)}, here {own[key]})")
        raise ValueError(
            f"{self.folder} holds the parts of a run with {next(filter(None, reasons))}: remove "
            "that folder to start anew, or write to another file"
        )

    def lock(self) -> None:
        """Keeps others from writing these blocks until `unlock`, or as long as this process lives.

        Raises:
            ValueError: Another one is writing them.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        self._lock = open(self.folder / LOCK, "w")  # noqa: SIM115
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            self._lock.close()
            raise ValueError(
                f"{self.path}: another process is writing it: wait for that, or name another file"
            ) from error

    def unlock(self) -> None:
        """Lets others write, where `lock` kept them from it."""
        if self._lock is not None:
            self._lock.close()

    def left(self) -> list[int]:
        """Lists the numbers of the blocks that are still to do."""
        done = {path.stem for path in self.folder.glob("*.parquet")}
        blocks = math.ceil(len(self.samples) / self.block_size)
        return [block for block in range(blocks) if _name(block) not in done]

    def write(self, indices: NDArray[np.int64], vectors: NDArray[np.float32]) -> None:
        """Writes the vectors (n, D) of a block.

        Args:
            indices: Which of all images these are, (n,); -1 - i for an image i that is left out.
            vectors: L2-normalised.

        Raises:
            ValueError: One is not finite.
        """
        block = int(max(indices[0], -1 - indices[0])) // self.block_size
        kept = indices >= 0
        check_finite(torch.from_numpy(vectors[kept]), "vectors")
        table = pa.table({"index": indices[kept], "vector": as_column(vectors[kept])})
        path = self.folder / f"{_name(block)}.parquet"
        # What is left over goes with the folder.
        with written_whole(path, synced=True, one_of_many=True) as aside:
            pq.write_table(table, aside, compression="none", write_page_checksum=True)

    def merge(self) -> list[str]:
        """Writes the embeddings file, in the order of the images, and removes the parts.

        Returns:
            The paths of the images that were left out.
        """
        left_out: list[str] = []
        parts = sorted(self.folder.glob("*.parquet"))
        dimension = _read_part(parts[0]).column("vector").type.list_size

        def tables() -> Iterator[tuple[pa.Table, NDArray[np.float32]]]:
            for block, part in enumerate(parts):
                table = _read_part(part)
                kept = table.column("index").to_pylist()
                start = block * self.block_size
                whole = range(start, min(start + self.block_size, len(self.samples)))
                left_out.extend(self.samples[i].path for i in sorted(set(whole) - set(kept)))
                items = items_table([self.samples[i] for i in kept])
                yield items, as_vectors(table.column("vector"))

        write_parts(self.path, self.fingerprint, dimension, tables())
        _remove(self.folder)
        return left_out


def remove_joined(path: Path) -> None:
    """Removes the parts beside an embeddings file, if a run left them that was killed at its end.

    Not those of another model, nor what is no folder of parts.
    """
    if not path.is_file():
        return
    folder = path.with_name(f"{path.name}.parts")
    if folder.is_symlink() or not folder.is_dir():
        return
    with suppress(ValueError, KeyError, TypeError, FileNotFoundError):
        if {file.name for file in folder.iterdir()} - {LOCK}:
            found = json.loads((folder / RECORD).read_text(encoding="utf-8"))
            if read_embeddings(path).fingerprint != Fingerprint.from_json(found["fingerprint"]):
                return
        _remove(folder)


def _remove(folder: Path) -> None:
    """Removes parts, of which the record goes last: without it nobody knows whose they are."""
    for part in folder.glob("*.parquet"):
        part.unlink(missing_ok=True)
    shutil.rmtree(folder, ignore_errors=True)


def _read_part(path: Path) -> pa.Table:
    """Reads a block; one that is damaged is removed, so that it is computed again.

    Raises:
        ValueError: It was damaged.
    """
    try:
        table = pq.read_table(path, page_checksum_verification=True)
        if not isinstance(table.schema.field("vector").type, pa.FixedSizeListType):
            raise ValueError("its vectors are none")
        table.schema.field("index")
    except (pa.ArrowException, OSError, KeyError, ValueError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise  # the disk's, not the file's
        path.unlink()
        raise ValueError(
            f"{path}: was damaged ({str(error).splitlines()[0]}) and is removed; start again, "
            "and it is computed anew"
        ) from error
    return table


def _name(block: int) -> str:
    return f"{block:09d}"
