"""`correct`: merge, split and drop clusters of `labels` on a page; later labels obey."""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from typing import Any

from pplr_lightning.labelers.assignment import Assignment
from pplr_lightning.serving.corrections import Corrections
from pplr_lightning.serving.server import add_address, serve_page

DESCRIPTION = """
Shows the clusters of a candidate of `labels` in order of doubt, each with its images and the
nearest others beside it, and takes your answers: which are of one person and which are not. They
are written one by one as pairs of images, which `pseudo_labels.pairs` of a training and `--pairs`
of `labels` obey.
"""


def run(args: list[str]) -> None:
    """Serves the page until it is stopped."""
    options = _parse(args)
    assignment = Assignment.read(options.labels / f"candidate{options.candidate}.parquet")
    if options.root is not None:
        assignment = replace(assignment, root=options.root.absolute())
    if not assignment.root.is_dir():
        raise FileNotFoundError(
            f"{assignment.root}: no such folder; give the one that the images are in with --root"
        )
    corrections = Corrections(assignment, options.out)

    def make() -> tuple[Any, str]:
        from pplr_lightning.serving.correction_page import build_page

        what = f"{len(corrections.order):,} clusters of {len(assignment.names):,} images"
        return build_page(corrections), what

    serve_page(options, make, name="correct", can="see the images and answer")


def _parse(args: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        "python -m pplr_lightning correct", description=DESCRIPTION.strip()
    )
    parser.add_argument("--labels", type=Path, required=True, help="folder, written by labels")
    parser.add_argument(
        "--candidate", type=int, default=1, help="number of its candidate (default: %(default)s)"
    )
    parser.add_argument(
        "--out",
        type=Path,
        required=True,
        help="the answers (.parquet); those that are there already count, and are gone on with",
    )
    parser.add_argument("--root", type=Path, help="where the images are, if no longer there")
    add_address(parser)
    return parser.parse_args(args)
