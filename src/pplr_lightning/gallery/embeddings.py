"""Vectors of images in a file: what they belong to and what they were made with."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple, cast

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from numpy.typing import NDArray
from torch import Tensor

from pplr_lightning.atomic_write import written_whole
from pplr_lightning.data.datasets import UNKNOWN, Sample
from pplr_lightning.evaluation.fingerprint import Fingerprint
from pplr_lightning.functional.checks import check_features, check_finite

KEY = b"pplr_lightning"  # of the fingerprint in a file's metadata
GROUP_BYTES = 2**26  # of vectors in a row group, and of what is held at a time
ITEMS = pa.schema(
    [
        pa.field("path", pa.string(), nullable=False),
        pa.field("person_id", pa.int64()),
        pa.field("camera_id", pa.int64()),
    ]
)


class Embeddings(NamedTuple):
    """N images with their vectors.

    Attributes:
        vectors: L2-normalised float32 rows, (N, D): an array, a memory map, or anything else of
            that `shape` that gives consecutive rows for a slice, as a file does.
        items: A table with the columns of `ITEMS`; an id that is not known is null.
        fingerprint: What the vectors were made with.
    """

    vectors: Any
    items: pa.Table
    fingerprint: Fingerprint

    def chunks(self) -> Iterator[NDArray[np.float32]]:
        """Yields the vectors, `GROUP_BYTES` at a time.

        Raises:
            ValueError: A vector is not finite or not normalised.
        """
        images, dimension = self.vectors.shape
        rows = rows_of(dimension)
        for start in range(0, images, rows):
            # A copy, for a memory map may be read-only.
            chunk = np.array(self.vectors[start : start + rows], dtype=np.float32, order="C")
            check_features(torch.from_numpy(chunk), "vectors")
            yield chunk


def rows_of(dimension: int) -> int:
    """Counts the vectors that `GROUP_BYTES` hold; a power of two, so that arrays grow in step."""
    return 1 << max(0, (GROUP_BYTES // (4 * dimension)).bit_length() - 1)


def check_names(samples: Iterable[Sample]) -> None:
    """Checks that the images' paths can be written: parquet holds UTF-8.

    Raises:
        ValueError: The name of a file or folder is not UTF-8.
    """
    for sample in samples:
        try:
            sample.path.encode()
        except UnicodeEncodeError as error:
            raise ValueError(
                f"{sample.path!a}: the name is not UTF-8, which an embeddings file holds: "
                "rename the file or folder"
            ) from error


def items_table(samples: Sequence[Sample]) -> pa.Table:
    """Lists images in a table with the columns of `ITEMS`.

    Raises:
        ValueError: A path cannot be written.
    """
    check_names(samples)

    def known(ids: Sequence[int]) -> list[int | None]:
        return [None if number == UNKNOWN else number for number in ids]

    columns = [
        [one.path for one in samples],
        known([one.person_id for one in samples]),
        known([one.camera_id for one in samples]),
    ]
    return pa.table(columns, schema=ITEMS)


def write_parts(
    path: Path,
    fingerprint: Fingerprint,
    dimension: int,
    parts: Iterable[tuple[pa.Table, NDArray[np.float32]]],
) -> None:
    """Writes an embeddings file, whole or not at all, in whole row groups as far as there are any.

    Args:
        path: Of the file.
        fingerprint: What the vectors were made with.
        dimension: Of the vectors, D.
        parts: Images with their vectors (n, D), in turn.
    """
    vector = pa.field("vector", pa.list_(pa.float32(), dimension), nullable=False)
    schema = pa.schema([*ITEMS, vector], metadata={KEY: fingerprint.to_json()})
    rows = rows_of(dimension)
    held: list[pa.Table] = []
    with (
        written_whole(path, synced=True) as aside,
        pq.ParquetWriter(aside, schema, compression="none", write_page_checksum=True) as file,
    ):
        for items, vectors in parts:
            held.append(pa.table([*items.columns, as_column(vectors)], schema=schema))
            if sum(len(table) for table in held) >= rows:
                file.write_table(pa.concat_tables(held), row_group_size=rows)
                held = []
        if held:
            file.write_table(pa.concat_tables(held), row_group_size=rows)


def as_column(vectors: NDArray[np.float32]) -> pa.Array:
    """Wraps vectors (n, D) as an arrow column of fixed-size lists."""
    values = np.ascontiguousarray(vectors, dtype=np.float32)
    return pa.FixedSizeListArray.from_arrays(pa.array(values.reshape(-1)), values.shape[1])


def as_vectors(column: pa.ChunkedArray) -> NDArray[np.float32]:
    """Unwraps what `as_column` wrapped, (n, D)."""
    dimension = column.type.list_size
    values = column.combine_chunks().flatten().to_numpy(zero_copy_only=False)
    return cast(NDArray[np.float32], values.reshape(-1, dimension))


def write_embeddings(
    path: str | Path, samples: Sequence[Sample], vectors: Tensor, fingerprint: Fingerprint
) -> None:
    """Writes images with their L2-normalised vectors (N, D) into a file for `index`.

    Raises:
        ValueError: A path cannot be written, or a vector is not finite.
    """
    check_finite(vectors, "vectors")
    dimension = vectors.shape[1]
    rows = rows_of(dimension)
    slices = [slice(start, start + rows) for start in range(0, len(samples), rows)]
    parts = ((items_table(samples[part]), vectors[part].float().cpu().numpy()) for part in slices)
    write_parts(Path(path), fingerprint, dimension, parts)


class _FileRows:
    """The column `vector` of a file, of which the row groups asked for last are held."""

    def __init__(self, path: Path, file: pq.ParquetFile, dimension: int) -> None:
        self.path = path
        self.file = file
        self.shape = (file.metadata.num_rows, dimension)
        counts = [file.metadata.row_group(n).num_rows for n in range(file.num_row_groups)]
        self.ends = np.cumsum([0, *counts])
        self.held: tuple[range, pa.ChunkedArray] | None = None

    def __getitem__(self, rows: slice) -> NDArray[np.float32]:
        start, stop, _ = rows.indices(self.shape[0])
        first = int(np.searchsorted(self.ends, start, side="right")) - 1
        groups = range(first, int(np.searchsorted(self.ends, stop)))
        if self.held is None or self.held[0] != groups:
            self.held = None  # before the next are read
            with _broken_is_named(self.path):
                table = self.file.read_row_groups(list(groups), columns=["vector"])
            self.held = (groups, table.column("vector"))
        column = self.held[1].slice(start - int(self.ends[first]), stop - start)
        return as_vectors(column).copy()


def read_embeddings(path: str | Path) -> Embeddings:
    """Opens a file that `predict` or `write_embeddings` wrote; vectors are read when asked for.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It is no such file.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such embeddings file; predict writes one")
    with _broken_is_named(path):
        file = pq.ParquetFile(path, memory_map=True, page_checksum_verification=True)
    schema = file.schema_arrow
    types = {field.name: field.type for field in schema}
    vector = types.get("vector")
    if (
        any(types.get(field.name) != field.type for field in ITEMS)
        or not isinstance(vector, pa.FixedSizeListType)
        or vector.value_type != pa.float32()
    ):
        raise ValueError(
            f"{path}: wrong columns; needs path (string), person_id and camera_id (int64) and "
            "vector (a list of float32 of fixed size), has "
            + ", ".join(f"{name} ({kind})" for name, kind in types.items())
        )
    try:
        fingerprint = Fingerprint.from_json((schema.metadata or {}).get(KEY, b"{}"))
    except ValueError as error:
        raise ValueError(
            f"{path}: does not say which model its vectors are of; write it with predict or "
            f"write_embeddings ({error})"
        ) from error
    with _broken_is_named(path):
        items = file.read(ITEMS.names)
    return Embeddings(_FileRows(path, file, vector.list_size), items, fingerprint)


@contextmanager
def _broken_is_named(path: Path) -> Iterator[None]:
    """Names the file in what is said of it."""
    try:
        yield
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: no whole parquet file ({str(error).splitlines()[0]})") from error
