"""The labels of many settings as a page that needs no other file, and as lines of text."""

from __future__ import annotations

import base64
import math
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from pplr_lightning.report.run_page import write_page
from pplr_lightning.report.tables import Table

Row = dict[str, Any]  # a setting's options and values by name, and its doubts

# Of each value: a heading, a short one, and how it is written.
COLUMNS = {
    "k1": ("k1", "k1", "{}"),
    "k2": ("k2", "k2", "{}"),
    "eps": ("eps", "eps", "{:g}"),
    "min_samples": ("min_samples", "min", "{}"),
    "clusters": ("clusters", "clusters", "{:,.0f}"),
    "outliers": ("outliers", "outliers", "{:.0%}"),
    "largest": ("largest cluster, of all images", "largest", "{:.1%}"),
    "median_size": ("median size", "median", "{:g}"),
    "images_per_cluster": ("images per cluster", "per cluster", "{:.1f}"),
    "across_cameras": ("in clusters of two cameras", "cameras", "{:.0%}"),
    "persistence": ("persistence", "persist", "{:.2f}"),
    "score": ("score", "score", "{:.3f}"),
    "ari": ("ARI", "ARI", "{:.3f}"),
    "precision": ("precision of pairs", "precision", "{:.2f}"),
    "recall": ("recall of pairs", "recall", "{:.2f}"),
    "recall_across": ("recall of pairs in two cameras", "across", "{:.2f}"),
}


class Candidate(NamedTuple):
    """A setting to look at.

    Attributes:
        name: Its options in words.
        row: Its values.
        config: The YAML file with its options.
        text: What is in that file.
        picture: A PNG of its clusters.
        caption: Of the picture.
    """

    name: str
    row: Row
    config: str
    text: str
    picture: Path
    caption: str


def columns_of(rows: Sequence[Row]) -> list[str]:
    """Names the values that are known of any setting, in the order of the page."""
    return [name for name in COLUMNS if any(name in row for row in rows)]


def written(row: Row, name: str) -> str:
    """Writes a value; nothing where it is not known."""
    value = row.get(name, math.nan)
    return "" if math.isnan(value) else COLUMNS[name][2].format(value)


def lines(rows: Sequence[Row]) -> list[str]:
    """Lays the settings out for a terminal, a line each below the headings."""
    names = columns_of(rows)
    cells = [[COLUMNS[name][1] for name in names], *([written(r, n) for n in names] for r in rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    marks = ["", *("; ".join(row["doubts"]) for row in rows)]
    return [
        "  ".join([*(text.rjust(w) for text, w in zip(line, widths, strict=True)), mark]).rstrip()
        for line, mark in zip(cells, marks, strict=True)
    ]


def write_labels_page(
    file: Path,
    *,
    title: str,
    start: str,
    tiles: Sequence[tuple[str, str]],
    rows: Sequence[Row],
    candidates: Sequence[Candidate],
    images_per_person: float | None = None,
    pairs: str | None = None,
) -> Path:
    """Writes the page.

    Args:
        file: To write.
        title: What was labelled.
        start: The weights that the images were embedded with.
        tiles: Numbers that say what was done, each with its words.
        rows: All settings.
        candidates: Those to look at, the best first; where all settings are in doubt, some of them.
        images_per_person: What the user expects.
        pairs: Table that the labels obey, to which further answers are added.

    Returns:
        Its path.
    """
    answers = pairs if pairs is not None and pairs.endswith(".parquet") else "corrections.parquet"
    names = columns_of(rows)
    header = [*(COLUMNS[name][0] for name in names), "set aside, because"]
    body = [[*(written(row, name) for name in names), "; ".join(row["doubts"])] for row in rows]
    page = {
        "title": title,
        "start": start,
        "tiles": tiles,
        "expected": None if images_per_person is None else f"{images_per_person:g}",
        "table": Table(header, body),
        "maps": _maps(rows, [one.row for one in candidates]),
        "candidates": [
            {
                **one._asdict(),
                "config": shlex.quote(one.config),
                "folder": shlex.quote(str(Path(one.config).parent)),
                "values": [(COLUMNS[n][0], written(one.row, n)) for n in names[4:]],
                "doubts": one.row["doubts"],
                "source": "data:image/png;base64,"
                + base64.b64encode(one.picture.read_bytes()).decode(),
            }
            for one in candidates
        ],
        "sound": any(not one.row["doubts"] for one in candidates),
        "answers": shlex.quote(answers),
        "cameras": "across_cameras" in names,
        "truth": "ari" in names,
    }
    return write_page(file, "labels.html.jinja", page)


def _maps(rows: Sequence[Row], chosen: Sequence[Row]) -> list[dict[str, Any]]:
    """Lays out each min_samples as k1 and k2 downwards and eps across."""
    best = max((row["score"] for row in rows), default=0.0) or 1.0
    across = sorted({row["eps"] for row in rows})
    maps = []
    for least in sorted({row["min_samples"] for row in rows}):
        some = {
            (row["k1"], row["k2"], row["eps"]): row for row in rows if row["min_samples"] == least
        }
        body = []
        for k1, k2 in sorted({place[:2] for place in some}):
            cells = [
                {
                    "clusters": written(row, "clusters"),
                    "largest": written(row, "largest"),
                    "shade": round(45 * row["score"] / best),
                    "doubts": row["doubts"],
                    "chosen": any(row is one for one in chosen),
                }
                for row in (some[(k1, k2, eps)] for eps in across)
            ]
            body.append((f"k1 {k1}, k2 {k2}", cells))
        maps.append({"least": least, "across": [f"{eps:g}" for eps in across], "rows": body})
    return maps
