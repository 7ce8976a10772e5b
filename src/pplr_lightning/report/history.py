"""A run's history on disk: one row per epoch, whatever logger the run had."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from pplr_lightning.atomic_write import write_whole

Row = dict[str, float]  # `epoch` and what was logged in it, by name

FILE = "history.csv"
BEFORE = -1  # the epoch of what was measured before training
LARGEST = 1e15  # a number beyond is damage; charts could not tell two such epochs apart


def write_history(file: Path, rows: Iterable[Row]) -> None:
    """Writes rows as CSV, in the order of their epoch."""
    rows = sorted(rows, key=lambda row: row["epoch"])
    others = sorted({name for row in rows for name in row} - {"epoch"})
    lines = io.StringIO()
    writer = csv.DictWriter(lines, ["epoch", *others], lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_whole(file, lines.getvalue())


def read_history(file: Path) -> tuple[list[Row], list[str]]:
    """Reads a history, or the `metrics.csv` of Lightning's CSVLogger, which has many rows an epoch.

    Returns:
        A row per epoch, in order: losses (`train/...`) are means over the epoch's lines, of all
        else the last value counts. And a sentence for everything that could not be read.
    """
    notes: list[str] = []
    values: dict[int, dict[str, list[float]]] = {}
    with file.open(newline="", encoding="utf-8", errors="replace") as lines:
        reader = csv.reader(line.replace("\0", "") for line in lines)
        header, broken = _cells(reader) or [], []
        if "epoch" not in header:
            return [], [f"{file.name} has no column `epoch` and was left out."]
        while (cells := _cells(reader)) is not None:
            parsed = _parse(header, cells)
            if parsed is None:
                broken.append(reader.line_num)
                continue
            epoch = values.setdefault(int(parsed.pop("epoch", BEFORE)), {})
            for name, value in parsed.items():
                epoch.setdefault(name, []).append(value)
    if broken:
        more = f" and {len(broken) - 1} more" if len(broken) > 1 else ""
        notes.append(f"{file.name}, line {broken[0]}{more}: not readable, left out.")
    rows = [{"epoch": float(epoch), **_one(values[epoch])} for epoch in sorted(values)]
    return rows, notes


def first_best_last(evaluations: Sequence[Row], *, by: str = "val/mAP") -> dict[str, Row]:
    """Picks the first, the best and the last evaluation, by these words; none of none."""
    if not evaluations:
        return {}
    best = max(evaluations, key=lambda row: row[by])
    return {"first": evaluations[0], "best": best, "last": evaluations[-1]}


def when(epoch: float) -> str:
    """Names an epoch."""
    return "before training" if epoch == BEFORE else f"epoch {epoch:.0f}"


def describe_epoch(row: Row) -> str:
    """Tells an epoch in one line: labels, losses, evaluation, time."""
    parts = []
    if "labels/clusters" in row:
        scores = {"agreement": "labels/agreement_mean", "ARI": "labels/ari"}
        parts.append(
            f"{row['labels/clusters']:.0f} clusters, {100 * row['labels/outliers']:.1f} % outliers"
            + (f", {100 * row['labels/singles']:.1f} % alone" if "labels/singles" in row else "")
            + "".join(f", {word} {row[name]:.3f}" for word, name in scores.items() if name in row)
        )
    if "train/loss" in row:
        others = [
            f"{name.removeprefix('train/loss_')} {value:.3f}"
            for name, value in sorted(row.items())
            if name.startswith("train/loss_")
        ]
        parts.append(
            f"loss {row['train/loss']:.3f}" + (f" ({', '.join(others)})" if others else "")
        )
    if "val/mAP" in row:
        first = f", rank-1 {100 * row['val/rank-1']:.1f} %" if "val/rank-1" in row else ""
        parts.append(f"mAP {100 * row['val/mAP']:.1f} %{first}")
    times = [f"{name} {seconds:.1f} s" for name, seconds in working_times(row).items() if seconds]
    parts += [", ".join(times)] if times else []
    return f"epoch {row['epoch']:.0f}" + (f": {'; '.join(parts)}" if parts else "")


def working_times(row: Row) -> dict[str, float]:
    """Sums up an epoch's seconds: all stages of the labels, training, evaluation."""
    times = {n.removeprefix("time/"): v for n, v in row.items() if n.startswith("time/")}
    work = {name: times.pop(name, 0.0) for name in ("training", "evaluation")}
    return {"labels": sum(times.values()), **work}


def _cells(reader: Iterator[list[str]]) -> list[str] | None:
    """Returns the next line's cells, empty where it cannot be read; None at the end."""
    try:
        return next(reader, None)
    except csv.Error:  # a cell of more than 131,072 letters
        return []


def _parse(header: list[str], cells: list[str]) -> Row | None:
    """Returns a line's numbers; None where it is cut off, or holds no numbers or no such epoch."""
    if len(cells) != len(header):
        return None
    try:
        numbers = {n: float(c) for n, c in zip(header, cells, strict=True) if c.strip()}
    except ValueError:
        return None
    found = sound(numbers)
    return None if "epoch" in numbers and "epoch" not in found else found


def as_number(value: Any) -> float:
    """Returns what should be a number, 0 where it is none or larger than anything measured."""
    return float(value) if isinstance(value, (int, float)) and abs(value) <= LARGEST else 0.0


def sound(numbers: Row) -> Row:
    """Leaves out what is not finite, or larger than anything that a run measures."""
    return {name: number for name, number in numbers.items() if abs(number) <= LARGEST}


def _one(epoch: dict[str, list[float]]) -> Row:
    return {
        "lr" if name.startswith("lr-") else name: (  # as Lightning's LearningRateMonitor calls it
            sum(found) / len(found) if name.startswith("train/") else found[-1]
        )
        for name, found in epoch.items()
    }
