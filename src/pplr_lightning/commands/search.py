"""`search`: the images of a gallery that are most like a query."""

from __future__ import annotations

import argparse
from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from pplr_lightning.data import Sample
from pplr_lightning.data.images import read_image
from pplr_lightning.gallery import Gallery, Matches, SearchEngine
from pplr_lightning.gallery.branches import CANDIDATES
from pplr_lightning.visualization import matches_figure, save_figure


def run(args: list[str]) -> Matches:
    """Searches a gallery, prints what is found and draws it."""
    options = _parse(args)
    if options.sheet.is_dir():
        raise IsADirectoryError(f"--sheet {options.sheet}: is a folder; give the name of a file")
    for path in options.query:
        read_image(path)  # before the model is loaded
    engine = SearchEngine.load(options.index, options.ckpt_path)
    engine.check_weights(options.weights)
    gallery = engine.gallery
    matches = gallery.search(
        engine.module.embed(options.query, kind=gallery.fingerprint.features),
        options.top,
        weights=options.weights,
        rerank=options.rerank,
        without_cameras=options.without_cameras,
    )
    found = [[gallery.sample(row) for row in rows if row >= 0] for rows in matches.rows.tolist()]
    _print(options.query, found, matches, gallery)
    figure = matches_figure(
        options.query,
        found,
        matches.similarity.tolist(),
        total=len(gallery),
        reranked=options.rerank,
    )
    save_figure(figure, options.sheet)
    print(f"drawn in {options.sheet}")
    return matches


def _print(
    queries: list[str], found: list[list[Sample]], matches: Matches, gallery: Gallery
) -> None:
    """Prints a line for each image found, with the ids that are known."""
    samples = [sample for row in found for sample in row]
    ids = {
        title: name
        for title, name in (("person", "person_id"), ("camera", "camera_id"))
        if any(getattr(sample, name) >= 0 for sample in samples)
    }
    scores = {"similarity": matches.similarity}
    if matches.distance is not None:
        scores["distance"] = matches.distance
    caption = f"of {len(gallery):,} images"
    if matches.distance is not None:
        caption += ", the most similar re-ranked by the neighbours they share with the query"
    if gallery.recall is not None:
        caption += f"; approximate, with a recall@10 of {gallery.recall:.3f} when it was built"
    for number, (query, row) in enumerate(zip(queries, found, strict=True)):
        table = Table(title=Text(f"Most similar to {query}"), caption=caption)
        for title in ("rank", *scores, *ids):
            table.add_column(title, justify="right")
        table.add_column("image", overflow="fold")
        for rank, sample in enumerate(row):
            values = [f"{score[number, rank]:.3f}" for score in scores.values()]
            known = [str(getattr(sample, name)) for name in ids.values()]
            image = Text(sample.path)  # a path may look like markup
            table.add_row(str(1 + rank), *values, *known, image)
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
        "--rerank",
        action="store_true",
        help=f"order the {CANDIDATES} most similar anew, by the neighbours they share with the "
        "query (k-reciprocal)",
    )
    parser.add_argument(
        "--weights",
        nargs="+",
        type=float,
        metavar="W",
        help="what the global feature (of --features both) and each part count, top to bottom, in "
        "a gallery of --features both or parts",
    )
    parser.add_argument(
        "--without_cameras",
        nargs="+",
        type=int,
        default=(),
        metavar="ID",
        help="leave out the images of these cameras",
    )
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
