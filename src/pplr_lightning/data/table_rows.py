"""Rows of a table that a user gives, CSV or Parquet, with where each stands."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterator
from pathlib import Path

from pplr_lightning.data.files import read_utf8

Row = dict[str, str]
Check = Callable[[Path, list[str]], None]


def table_rows(path: Path, wanted: tuple[str, ...], check: Check) -> Iterator[tuple[str, Row]]:
    """Yields where each row stands, and the row: a text for each column, empty for nothing.

    Args:
        path: CSV in UTF-8, or Parquet (`.parquet`).
        wanted: Columns that are looked at, where they are there.
        check: Given `path` and all columns before any row is read; raises ValueError.

    Raises:
        FileNotFoundError: There is no such table.
        ValueError: It is no table, a row has not a value for each column, or a column is there
            twice.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such table")
    yield from (_parquet if path.suffix == ".parquet" else _csv)(path, wanted, check)


def _csv(path: Path, wanted: tuple[str, ...], check: Check) -> Iterator[tuple[str, Row]]:
    reader = csv.DictReader(io.StringIO(read_utf8(path), newline=""), skipinitialspace=True)
    columns = list(reader.fieldnames or [])
    _check(path, columns, check)
    try:
        for row in reader:
            where = f"{path}, line {reader.line_num}"
            if None in row or None in row.values():
                raise ValueError(f"{where}: not a value for each column ({', '.join(columns)})")
            yield where, row
    except csv.Error as error:
        raise ValueError(f"{path}: no table ({error}); save it as CSV in UTF-8") from error


def _parquet(path: Path, wanted: tuple[str, ...], check: Check) -> Iterator[tuple[str, Row]]:
    # Imported here: `import pplr_lightning` need not wait for it.
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path) as file:
            columns = list(file.schema_arrow.names)
            _check(path, columns, check)
            rows = file.read([name for name in wanted if name in columns]).to_pylist()
    except pa.ArrowException as error:
        raise ValueError(f"{path}: no Parquet file ({error})") from error
    for number, row in enumerate(rows, 1):
        values = {name: "" if value is None else str(value) for name, value in row.items()}
        yield f"{path}, row {number}", values


def _check(path: Path, columns: list[str], check: Check) -> None:
    check(path, columns)
    if len({*columns}) < len(columns):
        raise ValueError(f"{path}: has a column twice, of {columns}; take one of them out")
