"""`search`: the images of a gallery that are most like a query."""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table
from rich.text import Text

from pplr_lightning.data import Sample
from pplr_lightning.data.images import read_image
from pplr_lightning.gallery import Gallery, Matches
from pplr_lightning.loading import load_module
from pplr_lightning.visualization import matches_figure, save_figure


def run(args: list[str]) -> Matches:
    """Searches a gallery, prints what is found and draws it."""
    options = _parse(args)
    gallery = Gallery.load(options.index)
    for path in options.query:
        read_image(path)  # before the model is loaded
    module = load_module(options.ckpt_path)
    # As those of the gallery were, whatever size its user chose for them.
    module.preprocessing = gallery.recipe.preprocessing
    kind = gallery.recipe.features
    gallery.check(module.recipe(kind=kind), f"those of {options.ckpt_path}")
    module.to("cuda" if torch.cuda.is_available() else "cpu")
    matches = gallery.search(module.embed(options.query, kind=kind), options.top)
    found = [[gallery.sample(row) for row in rows if row >= 0] for rows in matches.rows.tolist()]
    _print(options.query, found, matches, gallery)
    figure = matches_figure(options.query, found, matches.similarity.tolist(), total=len(gallery))
    save_figure(figure, options.sheet)
    print(f"drawn in {options.sheet}")
    return matches


def _print(
    queries: list[str], found: list[list[Sample]], matches: Matches, gallery: Gallery
) -> None:
    """Prints a line for each image found, with the ids that are known."""
    samples = [sample for row in found for sample in row]
    columns = [
        (title, name)
        for title, name in (("person", "person_id"), ("camera", "camera_id"))
        if any(getattr(sample, name) >= 0 for sample in samples)
    ]
    caption = f"of {len(gallery):,} images"
    if gallery.recall is not None:
        caption += f"; approximate, with a recall@10 of {gallery.recall:.3f} when it was built"
    for query, row, similarities in zip(queries, found, matches.similarity.tolist(), strict=True):
        table = Table(title=Text(f"Most similar to {query}"), caption=caption)
        for title in ("rank", "similarity", *(title for title, _ in columns)):
            table.add_column(title, justify="right")
        table.add_column("image", overflow="fold")
        for rank, (sample, similarity) in enumerate(zip(row, similarities, strict=False), start=1):
            ids = [str(getattr(sample, name)) for _, name in columns]
            image = Text(sample.path)  # a path may look like markup
            table.add_row(str(rank), f"{similarity:.3f}", *ids, image)
        Console().print(table)


def _parse(args: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser("python -m pplr_lightning search", description=__doc__)
    parser.add_argument("--index", type=Path, required=True, help="gallery, written by index")
    parser.add_argument("--query", nargs="+", required=True, metavar="IMAGE")
    parser.add_argument(
        "--ckpt_path", required=True, help="the checkpoint that embedded the gallery"
    )
    parser.add_argument("--top", type=int, default=10, help="images to show (default: %(default)s)")
    parser.add_argument(
        "--sheet",
        type=Path,
        default=Path("search.png"),
        help="picture to write (default: %(default)s)",
    )
    options = parser.parse_args(args)
    if options.top < 1:
        parser.error(f"--top {options.top}: must be at least 1")
    return options
