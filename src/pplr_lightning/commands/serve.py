"""`serve`: search a gallery on a page in the browser of this machine."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from pplr_lightning.functional.warm_up import compile_loops
from pplr_lightning.gallery import SearchEngine
from pplr_lightning.serving.server import add_address, serve_page


def run(args: list[str]) -> None:
    """Serves the page until it is stopped."""
    options = _parse(args)

    def make() -> tuple[Any, str]:
        from pplr_lightning.serving.search_page import build_page

        engine = SearchEngine.load(options.index, options.ckpt_path)
        compile_loops()  # else the first re-ranking would take seconds
        return build_page(engine), f"{len(engine.gallery):,} images"

    serve_page(options, make, name="serve", can="search and see the gallery's images")


def _parse(args: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser("python -m pplr_lightning serve", description=__doc__)
    parser.add_argument("--index", type=Path, required=True, help="gallery, written by index")
    parser.add_argument(
        "--ckpt_path", required=True, help="the checkpoint that embedded the gallery"
    )
    add_address(parser)
    return parser.parse_args(args)
