"""A gallery as a user may have one: a file is gone, names look like markup, cameras are known."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from PIL import Image

from pplr_lightning.data import Sample
from pplr_lightning.gallery import Embeddings, Gallery
from pplr_lightning.gallery.embeddings import items_table

from .tiny import module, save

EVIL = "<b onclick=alert(1)>${1+1}{{7*7}}.png"


class Made(NamedTuple):
    """The files of a gallery; `images` are its own, in their order, of which 5 is gone."""

    index: Path
    checkpoint: Path
    images: list[Path]


def make(drawn: Path, folder: Path) -> Made:
    """Makes one of 30 images of the drawn data set, of random weights."""
    images = []
    for number, path in enumerate(sorted((drawn / "bounding_box_test").glob("0*.png"))[:30]):
        images.append(folder / (EVIL if number == 3 else f"{number}.png"))
        Image.open(path).save(images[-1])
    model = module()
    samples = [Sample(str(path), number, number % 3) for number, path in enumerate(images)]
    rows = model.embed(images, kind="both").numpy()
    found = Embeddings(rows, items_table(samples), model.fingerprint(kind="both"))
    Gallery.build(found).save(folder / "some.index")
    images[5].unlink()
    return Made(folder / "some.index", save(model, folder / "last.ckpt"), images)
