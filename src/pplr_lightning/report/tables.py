"""The tables of a report: results, labels, time; as text, row by row."""

from __future__ import annotations

from typing import NamedTuple

from pplr_lightning.report.history import Row, as_number, first_best_last, when, working_times
from pplr_lightning.report.reading import Run
from pplr_lightning.report.setting import duration, run_seconds

STAGES = {
    "extraction": "features of the training images",
    "neighbors": "nearest neighbours",
    "choice": "choice of settings that are auto",
    "jaccard": "Jaccard distance",
    "clustering": "clustering",
    "agreement": "agreement, with its search",
    "centroids": "means of the clusters",
    "training": "training",
    "evaluation": "evaluation",
}
# What each is called, the unit's factor, and the places it is written with.
LABELS = {
    "clusters": ("clusters", 1, 0),
    "outliers": ("outliers, % of the images", 100, 1),
    "largest": ("largest cluster, % of the images", 100, 1),
    "across_cameras": ("in clusters of several cameras, % of the clustered images", 100, 1),
    "kept": ("clusters of the epoch before: kept, %", 100, 1),
    "merged": ("... merged with others, %", 100, 1),
    "split": ("... split, or no longer clusters, %", 100, 1),
    "agreement_mean": ("agreement, mean", 1, 2),
    **{f"agreement_part{part}": (f"agreement, part {part}", 1, 2) for part in range(1, 7)},
    "ari": ("adjusted Rand index", 1, 2),
    "precision": ("precision of pairs", 1, 2),
    "recall": ("recall of pairs", 1, 2),
    "k1": ("k1, chosen", 1, 0),
    "k2": ("k2, chosen", 1, 0),
    "eps": ("eps, chosen", 1, 2),
    "min_samples": ("min_samples, chosen", 1, 0),
}
MISSING = "-"  # what one of two runs does not have

Measured = tuple[float | None, str]  # None for words, and how it is written


class Table(NamedTuple):
    """Texts; the first cell of each row names it."""

    header: list[str]
    rows: list[list[str]]


class Time(NamedTuple):
    """A stage's seconds over the run, on average, images in a second, and its share in percent."""

    stage: str
    total: str
    mean: str
    rate: str
    share: float


def picked(run: Run) -> dict[str, Row]:
    """Picks the first, the best (by mAP) and the last evaluation; one alone is the last."""
    found = first_best_last(run.evaluations)
    return {"last": found["last"]} if len(run.evaluations) == 1 else found


def results(run: Run) -> Table | None:
    """Lays out the evaluations that count, in percent; None where there is none."""
    chosen = picked(run)
    if not chosen:
        return None
    body = []
    for name in metrics(run):
        values = [100 * row[name] if name in row else None for row in chosen.values()]
        texts = ["" if value is None else f"{value:.1f}" for value in values]
        difference = [_change(values[0], values[-1], 1)] if len(values) > 1 else []
        body.append([metric_name(name), *texts, *difference])
    header = ["%", *(f"{word}, {when(row['epoch'])}" for word, row in chosen.items())]
    return Table([*header, "last - first"] if len(chosen) > 1 else header, body)


def metrics(run: Run) -> list[str]:
    """Names what was evaluated: mAP first, ranks by their number."""
    names = {name for row in run.evaluations for name in row if name.startswith("val/")}

    def place(name: str) -> tuple[bool, str, int]:
        word, _, rank = name.rpartition("-")
        ranked = rank.isdecimal()
        return name != "val/mAP", word if ranked else name, int(rank) if ranked else 0

    return sorted(names, key=place)


def metric_name(name: str) -> str:
    """Names a metric of the history for a reader."""
    return name.removeprefix("val/").replace("rerank/", "re-ranked ")


def labels(run: Run) -> Table | None:
    """Lays out the first and the last labels; None where no labels were made."""
    if not run.labelings:
        return None
    ends = [run.labelings[0], run.labelings[-1]][-len(run.labelings) :]
    columns = [_of_labels(row) for row in ends]
    body = [[name, *(c[name][1] if name in c else "" for c in columns)] for name in columns[-1]]
    known = run.known("data").get("identities known of training images")
    if isinstance(known, int):
        body.insert(1, ["identities in truth", *[str(known)] * len(ends)])
    return Table(["", *(when(row["epoch"]) for row in ends)], body)


def _of_labels(row: Row) -> dict[str, Measured]:
    found: dict[str, Measured] = {}
    for key, (text, scale, places) in LABELS.items():
        if f"labels/{key}" in row:
            value = scale * row[f"labels/{key}"]
            found[text] = (value, f"{value:.{places}f}")
    return found


def times(run: Run) -> list[Time]:
    """Adds up each stage's seconds over the run; the longest share is where to save time."""
    whole = run_seconds(run)
    found: list[Time] = []
    if whole <= 0:  # of a damaged history, which has negative ones
        return found
    logged = (n.removeprefix("time/") for row in run.rows for n in row if n.startswith("time/"))
    for stage in dict.fromkeys([*STAGES, *logged]):
        seconds = [row[f"time/{stage}"] for row in run.rows if f"time/{stage}" in row]
        total = sum(seconds)
        if total > 0:
            images = _images(run, stage, len(seconds))
            rate = f"{images / total:,.0f}" if images else ""
            mean = duration(total / len(seconds))
            text = STAGES.get(stage, stage)  # a method may have stages of its own
            found.append(Time(text, duration(total), mean, rate, 100 * total / whole))
    return found


def _images(run: Run, stage: str, passes: int) -> float:
    """Counts the images that a stage took in all its passes, 0 where that is not known."""
    if stage == "training":
        steps = sum(row.get("iterations", 0.0) for row in run.epochs)
        return steps * run.number("data.batch_size")
    data = run.known("data")
    parts = ("query", "gallery") if stage == "evaluation" else ("training",)
    return passes * sum(as_number(data.get(f"{part} images")) for part in parts)


def compared(one: Run, other: Run) -> Table:
    """Lays out what was measured of two runs, with the difference."""
    left, right = _measured(one), _measured(other)
    body = []
    for name in dict.fromkeys([*left, *right]):
        (before, text), (after, other_text) = (
            found.get(name, (None, MISSING)) for found in (left, right)
        )
        places = len(text.partition(".")[2])  # as it is written with
        body.append([name, text, other_text, _change(before, after, places)])
    return Table(["", "A", "B", "B - A"], body)


def _measured(run: Run) -> dict[str, Measured]:
    """Names what a run's end can be judged by."""
    found: dict[str, Measured] = {}
    for word, row in picked(run).items():
        found[f"{word} evaluation"] = (None, when(row["epoch"]))
        for name in metrics(run) if word == "last" else ["val/mAP"]:
            value = row.get(name, 0.0)
            found[f"{word} {metric_name(name)}, %"] = (100 * value, percent(value))
    for row in run.labelings[-1:]:
        found |= {f"last {name}": value for name, value in _of_labels(row).items()}
    found["epochs finished"] = (float(run.finished), str(run.finished))
    for stage in working_times({}):
        seconds = [value for row in run.rows if (value := working_times(row)[stage])]
        if seconds:
            mean = sum(seconds) / len(seconds)
            found[f"{stage}, seconds each time"] = (mean, f"{mean:.3g}")
    return found


def percent(value: float) -> str:
    """Writes a share in percent."""
    return f"{100 * value:.1f}"


def _change(before: float | None, after: float | None, places: int) -> str:
    return "" if before is None or after is None else f"{after - before:+.{places}f}"
