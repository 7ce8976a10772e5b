"""Images per second and core: read from their files, or out of the cache.

    OMP_NUM_THREADS=1 python benchmarks/input.py

Draws people as JPEG files of 128 x 64 pixels, and has the data module make batches of them both
ways, in one thread, on the CPU. "Host" is what a core does of the cached way where a GPU does the
rest: drawing the augmentation's numbers and gathering the pixels.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import torch
from PIL import Image
from torch.utils.data import DataLoader

from pplr_lightning.data import ImageFolder, PPLRDataModule, SyntheticReID
from pplr_lightning.data.augmentation import TrainTransform
from pplr_lightning.data.cache import ImageCache
from pplr_lightning.data.pseudo_labels import PseudoLabels

SIZES = ((256, 128), (384, 128))


class Row(NamedTuple):
    """Images per second of one kind of batch, and the largest difference between the pixels."""

    size: str
    views: str
    files: float
    cached: float
    host: float
    difference: float


def draw_files(folder: Path, images: int) -> None:
    """Draws people as JPEG files."""
    people = SyntheticReID(folder / "unused", train_identities=images, image_size=(128, 64))
    for number, image in zip(range(images), people.images(), strict=False):
        file = folder / f"{number}.jpg"
        Image.fromarray(people.draw(image)).save(file, quality=95)


def make_data(folder: Path, size: tuple[int, int], *, cache: str, batches: int) -> PPLRDataModule:
    """Sets up images and some labels."""
    data = PPLRDataModule(
        ImageFolder(folder),
        image_size=size,
        iterations=batches,
        eval_batch_size=64,
        num_workers=0,
        cache=cache,  # type: ignore[arg-type]
    )
    data.setup("fit")
    images = len(data.train_samples)
    columns = {"agreement": torch.rand(images, 3)}
    data.pseudo_labels = PseudoLabels(torch.arange(images) % 16, columns)
    return data


def measure(size: tuple[int, int], folder: Path, *, batches: int, repeats: int) -> list[Row]:
    """Measures training and evaluation views of one size."""
    files, cached = (
        make_data(folder, size, cache=cache, batches=batches) for cache in ("none", "ram")
    )
    loaders: list[tuple[str, Callable[[PPLRDataModule], DataLoader[object]]]] = [
        ("training", PPLRDataModule.epoch_loader),
        ("evaluation", PPLRDataModule.labeling_dataloader),
    ]
    rows = []
    for views, loader in loaders:
        work = (
            partial(_pass, partial(loader, files)),
            partial(_pass, partial(loader, cached)),
            partial(_host, cached, views),
        )
        rates = _rates(work, repeats)
        difference = max(
            (a.images - b.images).abs().max().item()  # type: ignore[attr-defined]
            for a, b in zip(loader(files), loader(cached), strict=True)
        )
        rows.append(Row(f"{size[0]} x {size[1]}", views, *rates, difference))
    return rows


def _rates(work: Sequence[Callable[[], int]], repeats: int) -> list[float]:
    """Takes images per second of each, the best of some turns: other work disturbs them alike."""
    rates = [0.0] * len(work)
    for _ in range(repeats):
        for place, one in enumerate(work):
            start = time.process_time()
            images = one()
            rates[place] = max(rates[place], images / (time.process_time() - start))
    return rates


def _pass(loader: Callable[[], DataLoader[object]]) -> int:
    return sum(len(batch.images) for batch in loader())  # type: ignore[attr-defined]


def _host(data: PPLRDataModule, views: str) -> int:
    """Does for each batch what is done before pixels and numbers go to the device."""
    cache, transform, images = data.image_cache, data.train_transform, 0
    if not isinstance(cache, ImageCache) or not isinstance(transform, TrainTransform):
        raise ValueError("there is no cache")
    loader = data.epoch_loader() if views == "training" else data.labeling_dataloader()
    for batch in loader.batch_sampler or []:
        keys: list[int] = batch  # type: ignore[assignment]
        if views == "training":
            transform.draw([view.seed for view in batch])  # type: ignore[attr-defined]
            keys = [view.image for view in batch]  # type: ignore[attr-defined]
        cache.take([data.train_samples[key] for key in keys], torch.device("cpu"))
        images += len(batch)
    return images


def main(args: Sequence[str] | None = None) -> list[Row]:
    """Draws, measures, prints a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=256)
    parser.add_argument("--batches", type=int, default=4, help="training batches of 64 images")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--size", type=int, nargs=2, action="append", metavar=("H", "W"))
    options = parser.parse_args(args)
    torch.set_num_threads(1)
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        draw_files(Path(folder), options.images)
        for height, width in options.size or SIZES:
            rows += measure(
                (height, width), Path(folder), batches=options.batches, repeats=options.repeats
            )
    print("| size | views | from files | cached | ratio | host alone | ratio | difference |")
    print("|---|---|---|---|---|---|---|---|")
    for row in rows:
        print(
            f"| {row.size} | {row.views} | {row.files:.0f} | {row.cached:.0f} | "
            f"{row.cached / row.files:.1f} | {row.host:.0f} | {row.host / row.files:.0f} | "
            f"{row.difference:.1g} |"
        )
    return rows


if __name__ == "__main__":
    main()
