"""Tables of boxes, as CSV or Parquet."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from pplr_lightning.data.boxes import UNKNOWN, Row
from pplr_lightning.data.files import read_utf8
from pplr_lightning.data.table_rows import table_rows

TRACKS = ("track_id", "tracklet_id", "track")
NUMBERS = ("frame", "left", "top", "width", "height")
CONFIDENCE = "confidence"


def has_head(path: Path) -> bool:
    """Tells a table from numbers alone, by the first line."""
    lines = read_utf8(path).splitlines()
    return bool(lines) and any(letter.isalpha() for letter in lines[0])


def box_rows(path: Path) -> Iterator[Row]:
    """Yields the boxes of a table of the columns of `NUMBERS`, one of `TRACKS`, and `confidence`.

    Pixels are counted from 0. A table may have other columns, and may leave out the confidence.

    Raises:
        ValueError: It is no table, a column is missing, or a value is no number.
    """
    for where, row in table_rows(path, (*NUMBERS, *TRACKS, CONFIDENCE), _check_columns):
        track = next(name for name in TRACKS if name in row)
        confidence = [CONFIDENCE] if CONFIDENCE in row else []
        numbers = [_number(where, name, row[name]) for name in (*NUMBERS, track, *confidence)]
        yield Row(where, numbers[0], numbers[5], tuple(numbers[1:5]), *numbers[6:] or [UNKNOWN])


def _number(where: str, name: str, text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise ValueError(f"{where}: {name} is {text or 'missing'}, and no number") from None


def _check_columns(path: Path, columns: list[str]) -> None:
    if not {*NUMBERS} <= {*columns} or not {*TRACKS} & {*columns}:
        needed = f"{', '.join(NUMBERS)} and one of {', '.join(TRACKS)}"
        raise ValueError(f"{path}: needs the columns {needed}; has {', '.join(columns)}")
