"""Draws overview.jpg, the picture of the README, from what the demo leaves.

    make demo
    python docs/images/overview.py runs/demo/pplr-0 data/demo

What goes in: crops without names. What training makes of them: clusters. What comes out: for a crop
of a person that no training has seen, those of other cameras that are nearest to it. Crops,
clusters and queries are drawn at random; none was chosen by eye.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from pplr_lightning import PPLRModule
from pplr_lightning import functional as F
from pplr_lightning.data import Market1501, Sample
from pplr_lightning.visualization.layout import GREEN, GREY, RED, on_white, thumbnail

ROWS, IMAGES = 4, 5
WIDTH, HEIGHT = 0.42, 0.84  # of an image in inches, as all lengths here
BETWEEN, PANEL, HEAD = 0.06, 0.5, 0.35

Cell = tuple[Sample, str] | None  # an image and the colour of its frame


def main() -> None:
    """Embeds the images with the run's checkpoint, labels them and searches."""
    run, root = map(Path, sys.argv[1:])
    module = PPLRModule.load_from_checkpoint(run / "checkpoints/last.ckpt", map_location="cpu")
    train, query, gallery = Market1501(root).load()
    chance = np.random.default_rng(0)

    crops: list[Cell] = [(train[i], GREY) for i in chance.permutation(len(train))[: ROWS * IMAGES]]

    distance = F.jaccard_distance(module.embed([one.path for one in train]), k1=20, k2=4)
    labels = F.dbscan(distance, eps=0.5).numpy()
    clusters: list[Cell] = []
    for cluster in chance.permutation(labels.max() + 1)[:ROWS]:
        images = chance.permutation((labels == cluster).nonzero()[0])[:IMAGES]
        clusters += [(train[i], GREY) for i in images] + [None] * (IMAGES - len(images))

    matches: list[Cell] = []
    features = module.embed([one.path for one in gallery])
    for i in chance.permutation(len(query))[:ROWS]:
        asked = query[i]
        cosines = features @ module.embed(asked.path)[0]
        ranked = [gallery[i] for i in cosines.argsort(descending=True)]
        others = [one for one in ranked if one.camera_id != asked.camera_id]
        near = [one for one in others if one.person_id >= 0][:IMAGES]  # -1 is no person at all
        frames = [GREEN if one.person_id == asked.person_id else RED for one in near]
        matches += [(asked, GREY), *zip(near, frames, strict=True)]

    panels = {
        "crops without names": (crops, IMAGES),
        "clusters, the labels to train on": (clusters, IMAGES),
        "someone new: who is nearest?": (matches, IMAGES + 1),
    }
    draw(panels).savefig(Path(__file__).with_name("overview.jpg"), pil_kwargs={"quality": 90})


@on_white
def draw(panels: dict[str, tuple[list[Cell], int]]) -> Figure:
    """Draws panels side by side, each of cells and a number of columns."""
    columns = sum(number for _, number in panels.values())
    width = columns * (WIDTH + BETWEEN) + (len(panels) - 1) * PANEL + 2 * BETWEEN
    height = HEAD + ROWS * (HEIGHT + BETWEEN) + BETWEEN
    figure = Figure(figsize=(width, height), dpi=110, facecolor="white")
    axes = figure.add_axes((0, 0, 1, 1), xlim=(0, width), ylim=(height, 0))
    axes.set_axis_off()
    left = 2 * BETWEEN
    for title, (cells, number) in panels.items():
        axes.text(left, HEAD / 2, title, va="center", fontsize=11)
        for place, cell in enumerate(cells):
            row, column = divmod(place, number)
            x, y = left + column * (WIDTH + BETWEEN), HEAD + row * (HEIGHT + BETWEEN)
            if cell is not None:
                sample, colour = cell
                axes.imshow(thumbnail(sample.path), extent=(x, x + WIDTH, y + HEIGHT, y))
                axes.add_patch(
                    Rectangle((x, y), WIDTH, HEIGHT, fill=False, edgecolor=colour, linewidth=1.8)
                )
        left += number * (WIDTH + BETWEEN) + PANEL
    axes.set(xlim=(0, width), ylim=(height, 0))
    return figure


if __name__ == "__main__":
    main()
