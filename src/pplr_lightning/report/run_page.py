"""One run, or two side by side, as a page that needs no other file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from pplr_lightning.atomic_write import write_whole
from pplr_lightning.report.advice import advise
from pplr_lightning.report.curves import HEIGHT, WIDTH, charts, compared_charts
from pplr_lightning.report.reading import FIXED, LABELER, Run, read_run
from pplr_lightning.report.setting import (
    describe_setting,
    duration,
    flatten,
    run_seconds,
    without_home,
)
from pplr_lightning.report.tables import MISSING, compared, labels, percent, results, times

REPORT = "report.html"


def write_report(folder: Path, file: Path | None = None) -> Path:
    """Writes a run's report, `report.html` in its folder where no other file is named.

    Returns:
        Its path.

    Raises:
        FileNotFoundError: There is no such folder.
        ValueError: It is no run's.
    """
    run = read_run(folder)
    page = {
        "run": run,
        "tiles": _tiles(run),
        "results": results(run),
        "clusters": [] if run.evaluations else [f for f in run.figures if f.name == "clusters"],
        "labels": labels(run),
        "fixed": run.kind(LABELER) in FIXED,
        "advice": advise(run),
        "charts": charts(run.rows),
        "times": times(run),
        "setting": describe_setting(run),
        "environment": list(flatten(run.environment)),
        "config": list(flatten(run.config)),
    }
    return write_page(file or folder / REPORT, "report.html.jinja", page)


def write_comparison(one: Path, other: Path, file: Path) -> Path:
    """Writes two runs side by side into `file`.

    Returns:
        Its path.

    Raises:
        FileNotFoundError: One of the folders is not there.
        ValueError: One of them is no run's.
    """
    runs = read_run(one), read_run(other)
    names = [f"{letter}: {run.name}" for letter, run in zip("AB", runs, strict=True)]
    page = {
        "runs": runs,
        "names": names,
        "measured": compared(*runs),
        "charts": compared_charts(dict(zip(names, (run.rows for run in runs), strict=True))),
        "setting": _beside(*(dict(describe_setting(run)) for run in runs)),
        "config": _differing(*(run.config for run in runs)),
        "environment": _differing(*(run.environment for run in runs)),
    }
    return write_page(file, "comparison.html.jinja", page)


def _tiles(run: Run) -> list[tuple[str, str]]:
    """Picks the few numbers that a reader wants first: how good, how long, which labels."""
    tiles = []
    if run.evaluations:
        last = run.evaluations[-1]
        tiles.append((f"{percent(last['val/mAP'])} %", "mAP, last"))
        if "val/rank-1" in last:
            tiles.append((f"{percent(last['val/rank-1'])} %", "rank-1, last"))
    tiles.append((str(run.finished), "epochs finished"))
    if seconds := run_seconds(run):
        tiles.append((duration(seconds), "in all"))
    if run.labelings:
        last = run.labelings[-1]
        tiles.append((f"{last['labels/clusters']:.0f}", "clusters"))
        names = {"outliers": "outliers"}
        if not run.evaluations:  # all that there is to go by, beside the pictures
            names |= {"largest": "in the largest cluster", "kept": "of the clusters kept"}
        for name, text in names.items():
            if f"labels/{name}" in last:
                tiles.append((f"{percent(last[f'labels/{name}'])} %", text))
    return tiles


def _beside(left: dict[str, str], right: dict[str, str]) -> list[tuple[str, str, str, bool]]:
    """Joins two runs' values by name, and tells where they differ."""
    return [
        (name, left.get(name, MISSING), right.get(name, MISSING), left.get(name) != right.get(name))
        for name in dict.fromkeys([*left, *right])
    ]


def _differing(
    left: dict[str, Any], right: dict[str, Any]
) -> list[tuple[str, str, str, bool]] | None:
    """Joins what differs; None where one of the runs tells nothing."""
    if not left or not right:
        return None
    return [row for row in _beside(dict(flatten(left)), dict(flatten(right))) if row[3]]


def write_page(file: Path, template: str, content: dict[str, Any]) -> Path:
    """Fills in one of the templates; every text in it is escaped.

    Returns:
        The file's path.
    """
    environment = Environment(
        loader=PackageLoader("pplr_lightning.report"),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_finalize,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    text = environment.get_template(template).render(width=WIDTH, height=HEIGHT, **content)
    return write_whole(file, text)


def _finalize(value: Any) -> Any:
    # Of every text on the page, so that none can be forgotten.
    return (
        without_home(value) if isinstance(value, str) and not isinstance(value, Markup) else value
    )
