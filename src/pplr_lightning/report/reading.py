"""A run's folder, read as far as it can be."""

from __future__ import annotations

import base64
import errno
import json
import re
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from pplr_lightning.report.bounded_yaml import load_bounded
from pplr_lightning.report.history import BEFORE, FILE, Row, as_number, read_history, sound

METRICS = "metrics.csv"  # of Lightning's CSVLogger
PARTS = (FILE, METRICS, "summary.json", "config.yaml")  # any of them makes a folder a run's
FIGURE = re.compile(r"(?P<name>\w+)-epoch(?P<epoch>-?\d+)\.png")
LABELER = "pseudo_labels.labeler"
FIXED = ("Identities", "Instances")  # labelers whose labels are known before and stay
LARGEST = {".csv": 2**28, ".png": 2**25}  # bytes of a file that is read
LARGEST_OTHER = 2**20
PNG = b"\x89PNG\r\n\x1a\n"  # how each begins
FIGURES = ("ranking", "clusters", "embedding", "label_quality", "agreement", "refinement")


class Figure(NamedTuple):
    """A picture that the run left, as a data URI."""

    name: str
    epoch: int
    caption: str
    source: str


@dataclass(frozen=True)
class Run:
    """What a run's folder tells.

    Attributes:
        name: The last two parts of the folder's path, which usually are name and version.
        rows: The history, a row per epoch; epoch -1 is before training.
        config: `config.yaml`, empty where there is none.
        environment: `environment.json`, likewise.
        summary: `summary.json`, likewise.
        figures: The newest of each name.
        notes: A sentence for each thing that is missing or could not be read.
    """

    name: str
    rows: list[Row]
    config: dict[str, Any] = field(default_factory=dict)
    environment: dict[str, Any] = field(default_factory=dict)
    summary: dict[str, Any] = field(default_factory=dict)
    figures: list[Figure] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def epochs(self) -> list[Row]:
        """The rows of training, the unfinished one too."""
        return [row for row in self.rows if row["epoch"] > BEFORE]

    @property
    def finished(self) -> int:
        """The number of epochs that ran to their end."""
        return max((int(row["epoch"]) + 1 for row in self.epochs if row.get("finished")), default=0)

    @property
    def evaluations(self) -> list[Row]:
        """The rows in which the model was evaluated."""
        return [row for row in self.rows if "val/mAP" in row]

    @property
    def labelings(self) -> list[Row]:
        """The rows in which images were clustered."""
        return [row for row in self.rows if "labels/clusters" in row]

    def option(self, path: str) -> Any:
        """Returns an option by the name that a user types, None where there is none.

        It leaves out `init_args`, in which the config holds the options of a class.
        """
        value: Any = self.config
        for key in path.split("."):
            if isinstance(value, dict) and key not in value:
                value = value.get("init_args")
            value = value.get(key) if isinstance(value, dict) else None
        return value

    def number(self, path: str) -> float:
        """Returns an option that should be a number, 0 where it is none."""
        return as_number(self.option(path))

    def known(self, section: str) -> dict[str, Any]:
        """Returns a section of the environment, empty where there is none."""
        values = self.environment.get(section)
        return values if isinstance(values, dict) else {}

    def kind(self, path: str) -> str:
        """Names the class that an option is of, without its module; empty where it has none."""
        return str(self.option(f"{path}.class_path") or "").rpartition(".")[2]


def read_run(folder: Path) -> Run:
    """Reads a run's folder; what is missing or broken becomes a note.

    Raises:
        FileNotFoundError: There is no such folder.
        ValueError: It is no run's.
    """
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder}: no such folder; give that of a run, with metrics.csv")
    folder = folder.resolve()
    if not any((folder / name).is_file() for name in PARTS):
        inside = sorted({p.parent.name for part in PARTS for p in folder.glob(f"*/{part}")})
        raise ValueError(
            f"{folder}: no run's folder, it holds none of {', '.join(PARTS)}"
            + (f"; inside it are the runs {', '.join(inside)}: give one of them" if inside else "")
        )
    notes: list[str] = []
    summary = _read(folder, "summary.json", json.loads, notes)
    config = _read(folder, "config.yaml", load_bounded, notes)
    if not config:
        notes.append("There is no config.yaml, so the options of this run are not known.")
    run = Run(
        name="/".join(folder.parts[-2:]),
        rows=_read_rows(folder, summary, notes),
        config=config,
        environment=_read(folder, "environment.json", json.loads, notes),
        summary=summary,
        figures=_read_figures(folder, notes),
        notes=notes,
    )
    if run.kind(LABELER) not in FIXED:
        return run
    rows = [{n: v for n, v in row.items() if not n.startswith("labels/")} for row in run.rows]
    return replace(run, rows=rows)


def _own(run: Path, file: Path) -> Path:
    """Checks that a file of a run is one to be shown to whoever is given the report.

    The folder may be another's, who would have a link in it show a file of the reader's.

    Raises:
        OSError: It is none: a link out of the run's folder, no regular file, or a very large one.
    """
    try:
        found = file.resolve(strict=True)
    except RuntimeError as error:  # links in a circle, before Python 3.13
        raise OSError(errno.ELOOP, str(error)) from error
    if not found.is_relative_to(run):
        raise OSError("leads out of the run's folder")
    if not found.is_file():
        raise OSError(errno.EINVAL, "no file")
    if found.stat().st_size > LARGEST.get(file.suffix, LARGEST_OTHER):
        raise OSError("is too large")
    return found


def _left_out(file: Path, error: Exception | None) -> str:
    """Says why a file was left out, as far as `_own` said it."""
    own = isinstance(error, OSError) and error.errno is None
    return f"{file.name} {error if own else 'is not readable'} and was left out."


def _read(run: Path, name: str, parse: Callable[[str], Any], notes: list[str]) -> dict[str, Any]:
    """Reads a file of named values; an empty dict where there is none that can be read."""
    file, values, reason = run / name, None, None
    if not file.is_file():
        return {}
    try:
        values = parse(_own(run, file).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
        reason = error
    if not isinstance(values, dict):
        notes.append(_left_out(file, reason))
        return {}
    return values


def _read_rows(folder: Path, summary: dict[str, Any], notes: list[str]) -> list[Row]:
    """Reads the history; without one, the log, completed by the evaluations of the summary.

    A log is of one folder. A run that went on in another has the evaluations of all its parts in
    the summary, but the curves of the last part only.
    """
    name = next((name for name in (FILE, METRICS) if (folder / name).is_file()), None)
    nothing = f"There is neither {FILE} nor {METRICS}, so there are no curves."
    try:
        rows, found = ([], [nothing]) if name is None else read_history(_own(folder, folder / name))
    except OSError as error:
        rows, found = [], [_left_out(folder / str(name), error)]
    notes += found
    if name == FILE:
        return rows
    by_epoch = {int(row["epoch"]): row for row in rows}
    labelled = any("labels/clusters" in row for row in rows)
    for row in rows:  # it logs the labels at the epoch's end
        row["finished"] = float(
            row["epoch"] > BEFORE and ("labels/clusters" in row or not labelled)
        )
    first = min((epoch for epoch in by_epoch if epoch > BEFORE), default=0)
    if first > 0:
        notes.append(f"The log begins at epoch {first}: what came before is in another folder.")
    evaluations = summary.get("history") or []
    if not isinstance(evaluations, list):
        notes.append("summary.json: its history is no list and was left out.")
        evaluations = []
    for values in evaluations:
        try:
            numbers = sound({name: float(value) for name, value in values.items()})
            row = by_epoch.setdefault(int(numbers["epoch"]), {"epoch": numbers.pop("epoch")})
        except (AttributeError, KeyError, TypeError, ValueError, OverflowError):
            continue  # something else than an evaluation
        row.update({f"val/{name}": value for name, value in numbers.items() if name != "epoch"})
    return [by_epoch[epoch] for epoch in sorted(by_epoch)]


def _read_figures(run: Path, notes: list[str]) -> list[Figure]:
    captions = _read(run, "figures/captions.json", json.loads, notes)
    found: dict[str, list[tuple[int, Path]]] = {}
    for file in sorted(run.glob("figures/*.png")):
        if match := FIGURE.fullmatch(file.name):
            found.setdefault(match["name"], []).append((int(match["epoch"]), file))
    figures = []
    for name in [*(n for n in FIGURES if n in found), *sorted(found.keys() - {*FIGURES})]:
        epoch, file = max(found[name])
        try:
            content = _own(run, file).read_bytes()
            if not content.startswith(PNG):
                raise OSError("is no PNG")
        except OSError as error:
            notes.append(_left_out(file, error))
            continue
        source = "data:image/png;base64," + base64.b64encode(content).decode()
        figures.append(Figure(name, epoch, str(captions.get(file.name, "")), source))
    return figures
