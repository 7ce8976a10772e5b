"""Run folders that somebody else left."""

from __future__ import annotations

import re
from collections.abc import Iterator

from .bench import Bench, Case, files, some
from .configs import YAMLS
from .pictures import pictures


def run_folder_cases(bench: Bench) -> Iterator[Case]:
    """Run folders that somebody else left."""
    names = ("history.csv", "summary.json", "config.yaml", "environment.json", "metrics.csv")
    for turn, name in enumerate(names):
        for what, content in some(list(files(bench.run_folder / name, 4, 8).items()), turn):
            folder = bench.copy(bench.run_folder)
            (folder / name).write_bytes(content)
            yield Case(f"run {name} {what}", ["report", str(folder)], (str(folder),))
        for what in some(("pipe", "folder", "link to a device", "sparse", "link to itself"), turn):
            folder = bench.copy(bench.run_folder)
            (folder / name).unlink()
            pictures(bench)[what](folder / name)
            yield Case(f"run {name} {what}", ["report", str(folder)], (str(folder),))
    for what, content in some(list(YAMLS.items()), 0):
        folder = bench.copy(bench.run_folder)
        (folder / "config.yaml").write_bytes(content)
        yield Case(f"run config.yaml {what}", ["report", str(folder)], (str(folder),))
    for number, value in enumerate(("nan", "-1", "x", "1e400", "", "1:30", "9" * 400, "<b>")):
        folder = bench.copy(bench.run_folder)
        text = (folder / "history.csv").read_text()
        head, *rows = text.splitlines()
        rows = [",".join([value] * len(row.split(","))) for row in rows] if number % 2 else rows
        rows = rows if number % 2 else [re.sub(r"[\d.]+", value, row, count=3) for row in rows]
        (folder / "history.csv").write_text("\n".join([head, *rows]))
        yield Case(f"run history.csv of {value[:9]}", ["report", str(folder)], (str(folder),))
    for what, write in some(list(pictures(bench).items()), 1):
        folder = bench.copy(bench.run_folder)
        (folder / "figures").mkdir(exist_ok=True)
        write(folder / "figures/ranking-epoch0.png")
        yield Case(f"run figure {what}", ["report", str(folder)], (str(folder),))
