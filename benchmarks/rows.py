"""What the benchmarks share that train the rows of a table, each with several seeds."""

from __future__ import annotations

import argparse
import json
import os
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from pplr_lightning.commands.training import run_cli
from pplr_lightning.report.history import FILE, Row, read_history


class Run(NamedTuple):
    """What a finished run has left: its evaluations, and a row for each epoch."""

    summary: dict[str, Any]
    history: list[Row]

    def course(self, name: str) -> list[float]:
        """All values of a name, epoch by epoch."""
        return [row[name] for row in self.history if name in row]


def row_parser(description: str, *, runs: str) -> argparse.ArgumentParser:
    """A parser of the options that all rows share; what it leaves goes to `fit`."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--runs", type=Path, default=Path(runs))
    return parser


def train_row(
    name: str, arguments: Sequence[str], options: argparse.Namespace, rest: Sequence[str]
) -> list[Run]:
    """Trains a row with each seed, but for the runs that are finished (have a summary.json).

    Args:
        name: The row.
        arguments: Of `fit`, the config included.
        options: As `row_parser` reads them.
        rest: Arguments of `fit` that come last.
    """
    return [train(name, seed, arguments, options, rest) for seed in options.seeds]


def train(
    name: str,
    seed: int,
    arguments: Sequence[str],
    options: argparse.Namespace,
    rest: Sequence[str],
) -> Run:
    """Trains a row with one seed, or goes on with it, unless it is finished."""
    version = f"{name.replace(' ', '-')}-{seed}"
    folder = options.runs / "runs" / version
    if not (folder / "summary.json").is_file():
        checkpoints = sorted(folder.glob("checkpoints/*.ckpt"), key=os.path.getmtime)
        run_cli(
            [
                "fit",
                *arguments,
                f"--seed_everything={seed}",
                f"--trainer.logger.save_dir={options.runs}",
                "--trainer.logger.name=runs",
                f"--trainer.logger.version={version}",
                *(f"--ckpt_path={checkpoint}" for checkpoint in checkpoints[-1:]),
                *rest,
            ]
        )
    history, _ = read_history(folder / FILE)
    return Run(json.loads((folder / "summary.json").read_text()), history)


def spread(values: Sequence[float]) -> str:
    """Mean and standard deviation, in %."""
    deviation = statistics.stdev(values) if len(values) > 1 else 0.0
    return f"{100 * statistics.mean(values):.1f} ± {100 * deviation:.1f}"
