"""`report`: a run's folder as one page, or two runs side by side."""

from __future__ import annotations

import argparse
from pathlib import Path

from pplr_lightning.report.run_page import write_comparison, write_report

COMPARISON = "comparison.html"


def run(args: list[str]) -> Path:
    """Writes `report.html` into a run's folder, or compares two runs in `comparison.html`."""
    options = _parse(args)
    if options.output is not None and options.output.is_dir():
        raise IsADirectoryError(f"--output {options.output}: is a folder; give the name of a file")
    if len(options.runs) == 1:
        file = write_report(options.runs[0], options.output)
    else:
        one, other = options.runs
        file = write_comparison(one, other, options.output or Path(COMPARISON))
    print(file)
    return file


def _parse(args: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser("python -m pplr_lightning report", description=__doc__)
    parser.add_argument(
        "runs", type=Path, nargs="+", metavar="RUN", help="folder of a run; two to compare them"
    )
    parser.add_argument(
        "--output",
        type=Path,
        help=f"file to write; of one run report.html in its folder, of two {COMPARISON} here",
    )
    options = parser.parse_args(args)
    if len(options.runs) > 2:
        parser.error(f"got {len(options.runs)} folders: give one run, or two to compare them")
    return options
