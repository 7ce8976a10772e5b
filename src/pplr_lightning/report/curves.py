"""Curves over the epochs, laid out for a small SVG; colours and fonts are the page's."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import NamedTuple

from pplr_lightning.report.history import BEFORE, Row, when, working_times

WIDTH, HEIGHT = 340, 210
LEFT, RIGHT, TOP, BOTTOM = 46, 10, 10, 26
DOTS = 25  # points of a curve that are still marked; more would hide how it is dashed
SMALLEST = 1e-300  # width of a range; below it a fifth of it may be nothing
WORDS = 300  # points of a curve that still tell their value under the mouse

Series = tuple[str, list[tuple[float, float]]]  # a name; epochs, which may leave some out, values
Ticks = list[tuple[float, str]]  # places on an axis, with their labels


class Curve(NamedTuple):
    """A series in pixels: a path, its points with what they say, and its last value.

    `style` is its place among all series of the chart, those without points included, so that one
    name has one colour.
    """

    label: str
    style: int
    last: str
    path: str
    dots: list[tuple[float, float, str]]
    dense: bool


class Chart(NamedTuple):
    """A drawing of some series on common axes, the places of whose ticks are in pixels."""

    title: str
    curves: list[Curve]
    across: Ticks
    up: Ticks


class Panel(NamedTuple):
    """What a chart shows: names in the history, what each is called, and the unit's factor.

    `more` is how the names of others begin that a method may have.
    """

    title: str
    names: tuple[tuple[str, str], ...]
    scale: float = 1.0
    more: str = ""

    def named(self, rows: Iterable[Row]) -> list[tuple[str, str]]:
        """Lists the names and what each is called, with those of others that the rows have."""
        found = {name for row in rows for name in row if self.more and name.startswith(self.more)}
        others = sorted(found - {name for name, _ in self.names})
        return [*self.names, *((name, name.removeprefix(self.more)) for name in others)]


def _retrieval(title: str, prefix: str) -> Panel:
    return Panel(title, tuple((prefix + name, name) for name in ("mAP", "rank-1", "mINP")), 100)


PANELS = (
    _retrieval("Retrieval, %", "val/"),
    _retrieval("Retrieval, re-ranked, %", "val/rerank/"),
    Panel(
        "Losses (mean over the epoch)",
        (
            ("train/loss", "sum"),
            ("train/loss_pglr", "PGLR"),
            ("train/loss_parts", "parts"),
            ("train/loss_triplet", "triplet"),
            ("train/loss_camera", "camera"),
        ),
        more="train/loss_",
    ),
    Panel("Clusters", (("labels/clusters", "clusters"),)),
    Panel("Outliers, % of the images", (("labels/outliers", "outliers"),), 100),
    Panel(
        "Agreement of global and part features",
        (
            ("labels/agreement_mean", "mean"),
            *((f"labels/agreement_part{part}", f"part {part}") for part in range(1, 7)),
        ),
    ),
    Panel(
        "Labels against the identities",
        (("labels/ari", "ARI"), ("labels/precision", "precision"), ("labels/recall", "recall")),
    ),
    Panel("Learning rate", (("lr", "lr"),)),
    Panel("Seconds per epoch", tuple((f"work/{stage}", stage) for stage in working_times({}))),
)


def charts(rows: list[Row]) -> list[Chart]:
    """Draws one run: each panel of which there is something to show."""
    rows, found = _with_work(rows), []
    for panel in PANELS:
        series = [(label, _points(rows, name, panel.scale)) for name, label in panel.named(rows)]
        found.append(draw(panel.title, series))
    return [chart for chart in found if chart is not None]


def compared_charts(runs: dict[str, list[Row]]) -> list[Chart]:
    """Draws several runs: each quantity on axes of its own, a curve per run."""
    runs, found = {run: _with_work(rows) for run, rows in runs.items()}, []
    for panel in PANELS:
        for name, label in panel.named(row for rows in runs.values() for row in rows):
            title = panel.title if len(panel.names) == 1 else f"{panel.title}: {label}"
            series = [(run, _points(rows, name, panel.scale)) for run, rows in runs.items()]
            found.append(draw(title, series))
    return [chart for chart in found if chart is not None]


def _with_work(rows: list[Row]) -> list[Row]:
    """Adds the seconds of labels, training and evaluation, as far as there were any."""
    work = ({f"work/{stage}": s for stage, s in working_times(row).items() if s} for row in rows)
    return [{**row, **own} for row, own in zip(rows, work, strict=True)]


def _points(rows: list[Row], name: str, scale: float) -> list[tuple[float, float]]:
    return [(row["epoch"], scale * row[name]) for row in rows if name in row]


def draw(title: str, series: list[Series]) -> Chart | None:
    """Lays out the series that have points; None where none has."""
    points = [point for _, curve in series for point in curve]
    if not points:
        return None
    epochs, values = zip(*points, strict=True)
    left, right = min(epochs), max(max(epochs), min(epochs) + 1)
    bottom, top, step = value_range(min(values), max(values))

    def across(x: float) -> float:
        return round(LEFT + (x - left) / (right - left) * (WIDTH - LEFT - RIGHT), 1)

    def up(y: float) -> float:
        return round(TOP + (top - y) / (top - bottom) * (HEIGHT - TOP - BOTTOM), 1)

    curves = []
    for style, (label, points) in enumerate(series):
        if not points:
            continue
        places = [(across(x), up(y)) for x, y in points]
        told = [f"{label}, {when(x)}: {y:.4g}" for x, y in points]
        dots = [(*place, text) for place, text in zip(places, told, strict=True)]
        curve = Curve(
            label,
            style,
            last=short(float(f"{points[-1][1]:.3g}")),
            path="M" + "L".join(f"{x},{y}" for x, y in places),
            dots=dots if len(points) <= WORDS else [],
            dense=len(points) > DOTS,
        )
        curves.append(curve)
    levels = [bottom + i * step for i in range(round((top - bottom) / step) + 1)]
    return Chart(
        title,
        curves,
        across=[(across(x), text) for x, text in epoch_ticks(left, right)],
        up=[(up(y), short(y)) for y in levels],
    )


def short(value: float) -> str:
    """Writes a round number in few letters: 1.5e-4 rather than 0.00015."""
    if abs(value) < 1e-12:
        return "0"
    if abs(value) >= 0.001:
        return f"{value:.6g}"
    digits, _, power = f"{value:.2e}".partition("e")
    return f"{float(digits):g}e{int(power)}"


def value_range(low: float, high: float) -> tuple[float, float, float]:
    """Chooses a round range of values and a round step that divides it into one to seven."""
    if low >= 0 and low < 0.6 * high:
        low = 0.0
    span = next(width for width in (high - low, abs(high), 1.0) if width > SMALLEST)
    step = round_step(span / 5)
    bottom, top = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    if bottom == top:
        bottom, top = (bottom - 1 if bottom > 0 else bottom), top + 1
    return bottom * step, top * step, step


def epoch_ticks(left: float, right: float) -> Ticks:
    """Chooses the epochs that are named below a chart; the one before training is `start`."""
    step = max(1, round_step((right - left) / 5))
    first = math.ceil(max(left, 0) / step) * step
    count = int((right - first) / step + 1e-9) + 1
    ticks = [(x, f"{x:.0f}") for x in (first + i * step for i in range(count))]
    if left == BEFORE:
        ticks = [(BEFORE, "start"), *(tick for tick in ticks if tick[0] + 1 > 0.1 * (right + 1))]
    return ticks


def round_step(width: float) -> float:
    """Returns the smallest of 1, 2, 5 times a power of ten that is at least `width`."""
    power = 10.0 ** math.floor(math.log10(width))
    return next(m * power for m in (1, 2, 5, 10) if m * power >= width * (1 - 1e-9))
