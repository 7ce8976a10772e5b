"""`index`: a gallery that can be searched, from the embeddings of its images."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import get_args

from pplr_lightning.gallery.embeddings import Embeddings, read_embeddings
from pplr_lightning.gallery.faiss_index import Kind
from pplr_lightning.gallery.folders import settle
from pplr_lightning.gallery.gallery import MEMORY_LIMIT, PROBES, Gallery, check_paths

BUILDING = ("kind", "memory_limit", "probes")  # arguments of `Gallery.build`


def run(args: list[str]) -> Gallery:
    """Builds a gallery, or adds and removes images."""
    options = _parse(args)
    out = options.out or options.index
    settle(out)
    if out.exists() and out != options.index:
        raise ValueError(
            f"{out} is there already: name another folder or remove it, or change it with --index"
        )
    gallery = _change(options) if options.embeddings is None else _build(options)
    gallery.save(out, exclusive=True)
    print(f"{len(gallery):,} images of {gallery.dimension} dimensions are in {out}")
    return gallery


def _build(options: argparse.Namespace) -> Gallery:
    embeddings = _read(options.embeddings)
    if not len(embeddings.items):
        raise ValueError(f"{options.embeddings}: holds no image to build a gallery of")
    choices = {name: value for name in BUILDING if (value := getattr(options, name)) is not None}
    gallery = Gallery.build(embeddings, **choices)
    if gallery.recall is not None:
        print(
            f"compressed ({gallery.kind}): a recall@10 of {gallery.recall:.3f} against exact "
            "search, on a sample of the gallery's own images"
        )
    return gallery


def _read(path: Path) -> Embeddings:
    embeddings = read_embeddings(path)
    try:
        check_paths(embeddings.items)
    except ValueError as error:
        raise ValueError(f"{path}: {error}; embed each image once") from error
    return embeddings


def _change(options: argparse.Namespace) -> Gallery:
    gallery = Gallery.load(options.index)
    if options.remove:
        gallery.remove(options.remove)
    if options.add is not None:
        gallery.add(_read(options.add))
    return gallery


def _parse(args: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser("python -m pplr_lightning index", description=__doc__)
    parser.add_argument("--embeddings", type=Path, help="build a gallery of what predict wrote")
    parser.add_argument("--index", type=Path, help="change this gallery")
    parser.add_argument("--add", type=Path, help="embeddings to add to it")
    parser.add_argument(
        "--remove", nargs="+", metavar="PATH", help="images to remove from it (before any is added)"
    )
    parser.add_argument(
        "--out", type=Path, help="folder to write; a gallery is else changed in its place"
    )
    parser.add_argument(
        "--kind",
        choices=("auto", *get_args(Kind)),
        help="flat compares a query with every vector; ivfsq and ivfpq keep a quarter and a "
        "sixteenth of their bytes and find most of the nearest, how many is measured and printed; "
        "auto (the default) is the first of the three that stays within --memory_limit",
    )
    parser.add_argument(
        "--memory_limit",
        type=float,
        help=f"GiB in which auto keeps the vectors (default: {MEMORY_LIMIT})",
    )
    parser.add_argument(
        "--probes",
        type=int,
        help="cells of a compressed index that a query is compared with; more find more (default: "
        f"{PROBES})",
    )
    options = parser.parse_args(args)
    if (options.embeddings is None) == (options.index is None):
        parser.error("give --embeddings to build a gallery, or --index to change one")
    if options.embeddings is not None and options.out is None:
        parser.error("give --out, the folder to write")
    if (options.index is not None) != bool(options.add is not None or options.remove):
        parser.error("--add and --remove change the gallery that --index names: give both")
    given = [f"--{name}" for name in BUILDING if getattr(options, name) is not None]
    if options.index is not None and given:
        parser.error(f"{', '.join(given)}: for building a gallery, not for changing one")
    return options
