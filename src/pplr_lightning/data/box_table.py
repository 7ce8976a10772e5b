"""Tables of boxes, as CSV or Parquet."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from pplr_lightning.data.boxes import UNKNOWN, Row
from pplr_lightning.data.datasets import read_utf8

TRACKS = ("track_id", "tracklet_id", "track")
NUMBERS = ("frame", "left", "top", "width", "height")


def has_head(path: Path) -> bool:
    """Tells a table from numbers alone, by the first line."""
    lines = read_utf8(path).splitlines()
    return bool(lines) and any(letter.isalpha() for letter in lines[0])


def table_rows(path: Path) -> Iterator[Row]:
    """Yields the boxes of a table of the columns of `NUMBERS`, one of `TRACKS`, and `confidence`.

    Pixels are counted from 0. A table may have other columns, and may leave out the confidence.

    Raises:
        ValueError: It is no table, a column is missing, or a value is no number.
    """
    # Imported here: nothing else of the data needs them.
    import pyarrow as pa
    import pyarrow.csv
    import pyarrow.parquet

    read = pa.parquet.read_table if path.suffix == ".parquet" else pa.csv.read_csv
    try:
        table = read(path)
    except (pa.ArrowException, OSError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(f"{path}: no table of boxes ({reason})") from error
    names = table.column_names
    track = next((name for name in TRACKS if name in names), None)
    missing = [name for name in NUMBERS if name not in names]
    if track is None or missing or len({*names}) < len(names):
        needed = f"{', '.join(NUMBERS)} and one of {', '.join(TRACKS)}, each once"
        raise ValueError(f"{path}: needs the columns {needed}; has {', '.join(names)}")
    confident = "confidence" in names
    columns = []
    for name in (*NUMBERS, track, *(["confidence"] if confident else [])):
        try:
            columns.append(table[name].cast(pa.float64()).to_pylist())
        except pa.ArrowException as error:
            reason = str(error).splitlines()[0]
            raise ValueError(f"{path}: the column {name} holds no numbers ({reason})") from error
    first = 1 if path.suffix == ".parquet" else 2
    for number, values in enumerate(zip(*columns, strict=True), first):
        where = f"{path}, {'row' if path.suffix == '.parquet' else 'line'} {number}"
        if None in values:
            raise ValueError(f"{where}: a value is missing")
        frame, *box, track_id = values[:6]
        yield Row(where, frame, track_id, tuple(box), values[6] if confident else UNKNOWN)
