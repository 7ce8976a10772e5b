"""What all figures share: a page with title and caption, image cells on it, samples, saving."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib.style
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.transforms import Bbox
from PIL import Image
from torch import Tensor

from pplr_lightning.atomic_write import written_whole
from pplr_lightning.data.images import BadImageError, read_image

DPI = 130
GREEN, RED, GREY, BLACK = "#1a8a3a", "#d62728", "#8c8c8c", "#111111"
MARGIN = 0.12  # inches, as all lengths here
NARROWEST = 5.0
CELL = 1.05, 0.62  # height and width of an image
TITLE, CAPTION_LINE, FONT = 0.34, 0.135, 7.5

# Dark on white whatever the user's own settings are; use it as a decorator.
on_white = matplotlib.style.context(["default", {"font.size": FONT}])


def new_page(
    width: float, height: float, *, title: str, caption: str
) -> tuple[Figure, tuple[float, float]]:
    """Makes a figure with a title above and a caption below a body of `width` x `height` inches.

    Returns:
        The figure, and where its body begins and ends from below, as shares of its height.
    """
    lines = textwrap.wrap(caption, int((width - 2 * MARGIN) * 17))
    foot = CAPTION_LINE * len(lines) + 2 * MARGIN
    total = TITLE + height + foot
    figure = Figure(figsize=(width, total), dpi=DPI, facecolor="white")
    figure.set_label(caption)
    figure.text(MARGIN / width, 1 - MARGIN / total, title, va="top", fontsize=10, fontweight="bold")
    figure.text(
        MARGIN / width, MARGIN / total, "\n".join(lines), va="bottom", color="#333333",
        fontsize=FONT, linespacing=1.2,
    )  # fmt: skip
    return figure, (foot / total, (foot + height) / total)


def caption_of(figure: Figure) -> str:
    """Returns the caption that a figure of this package was made with."""
    return str(figure.get_label())


@on_white
def save_figure(figure: Figure, path: str | Path) -> None:
    """Writes a PNG, whole or not at all, that holds its caption as its description, too."""
    with written_whole(Path(path)) as aside:
        figure.savefig(
            aside,
            format="png",
            facecolor="white",
            metadata={"Description": caption_of(figure)},
            pil_kwargs={"compress_level": 4},  # 6 takes twice as long for files no smaller
        )


def sample(count: int, most: int, seed: int) -> list[int]:
    """Draws at most `most` of 0 to `count` - 1, in ascending order; the same for the same seed."""
    if count <= most:
        return list(range(count))
    return sorted(np.random.default_rng(seed).choice(count, most, replace=False).tolist())


def sampled(shown: int, total: int, what: str) -> str:
    """Says in words how many of all are shown."""
    return f"all {total:,} {what}" if shown == total else f"{shown:,} of {total:,} {what}, sampled"


class Sheet:
    """A page of image cells in rows, with names to the left of the rows and words below cells.

    Boxes on it are in inches from its upper left corner, so that `y0` is the top.

    Args:
        columns: Cells of a row.
        rows: Of cells.
        title: Above.
        caption: Below.
        below: Room below each cell.
        names: Width of the room for the rows' names.
        right: Room to the right of the cells.
        gaps: Additional room before some columns, by column.
        above: Room above the first row.
    """

    def __init__(
        self,
        rows: int,
        columns: int,
        *,
        title: str,
        caption: str,
        below: float = 0.2,
        names: float = 1.0,
        right: float = 0.0,
        gaps: dict[int, float] | None = None,
        above: float = 0.06,
    ) -> None:
        self.below, self.names, self.above, self.gaps = below, names, above, gaps or {}
        height, width = CELL
        width = 2 * MARGIN + names + columns * (width + MARGIN) + sum(self.gaps.values()) + right
        width = max(width, NARROWEST)
        height = above + max(rows, 1) * (height + below + MARGIN)
        self.figure, (low, high) = new_page(width, height, title=title, caption=caption)
        self.axes: Axes = self.figure.add_axes((0, low, 1, high - low))
        self.axes.set(xlim=(0, width), ylim=(height, 0), autoscale_on=False)
        self.axes.axis("off")
        if not rows:
            self.say(Bbox.from_bounds(0, 0, width, height), "nothing to show")

    def box(self, row: int, column: int) -> Bbox:
        """Returns a cell's place."""
        height, width = CELL
        left = MARGIN + self.names + column * (width + MARGIN)
        left += sum(gap for before, gap in self.gaps.items() if before <= column)
        top = self.above + row * (height + self.below + MARGIN)
        return Bbox.from_bounds(left, top, width, height)

    def name(self, row: int, text: str) -> None:
        """Writes to the left of a row."""
        box = self.box(row, 0)
        middle = (box.y0 + box.y1) / 2
        self.axes.text(MARGIN, middle, text, va="center", linespacing=1.35)

    def head(self, column: int, text: str) -> None:
        """Writes over a cell of the first row."""
        box = self.box(0, column)
        self.axes.text(box.x0, box.y0 - 0.04, text, va="bottom", fontweight="bold")

    def image(
        self,
        row: int,
        column: int,
        path: str,
        *,
        words: str = "",
        frame: str | None = None,
        line: str = "-",
        bold: bool = False,
    ) -> Bbox:
        """Draws an image file into a cell, or a placeholder if it cannot be read.

        Args:
            row: Of the cell.
            column: Of the cell.
            path: Of the file.
            words: Written below.
            frame: Colour of its frame; None for none.
            line: Style of the frame.
            bold: How the words are written.

        Returns:
            The place of the image itself, which keeps its proportions.
        """
        place = cell = self.box(row, column)
        picture = thumbnail(path)
        if picture is None:
            self._add(cell, facecolor="#e6e6e6", edgecolor=GREY, hatch="//")
            self.say(cell, "not\nreadable", backgroundcolor="#e6e6e6")
        else:
            ratio = picture.shape[0] / picture.shape[1]
            place = cell.shrunk_to_aspect(ratio).anchored("C", cell)
            self._show(picture, place)
        if frame is not None:
            self._add(place, fill=False, edgecolor=frame, linestyle=line, linewidth=2.2)
        if words:
            self.axes.text(
                (cell.x0 + cell.x1) / 2, cell.y1 + 0.04, words, ha="center", va="top",
                fontweight="bold" if bold else "normal", fontsize=FONT - 0.5,
            )  # fmt: skip
        return place

    def mask(self, place: Bbox, values: Tensor, **colours: Any) -> None:
        """Lays stripes of colours (P,), top to bottom, over an image, undiluted at its right."""
        array = values.numpy()[:, None]
        left = place.x1 - min(0.09, place.width / 4)
        edge = Bbox.from_extents(left, place.y0, place.x1, place.y1)
        for box, alpha in ((place, 0.33), (edge, 1.0)):
            self._show(array, box, alpha=alpha, interpolation="nearest", **colours)

    def bar(self, row: int, column: int, share: float, colour: str) -> None:
        """Draws a bar of `share` of a cell's width below the words below it."""
        cell = self.box(row, column)
        for width, face in ((1.0, "#e6e6e6"), (share, colour)):
            bar = Bbox.from_bounds(cell.x0, cell.y1 + 0.18, width * cell.width, 0.06)
            self._add(bar, facecolor=face)

    def say(self, box: Bbox, text: str, **options: Any) -> None:
        """Writes in the middle of a box."""
        middle = (box.x0 + box.x1) / 2, (box.y0 + box.y1) / 2
        self.axes.text(*middle, text, ha="center", va="center", fontsize=FONT - 1, **options)

    def _add(self, box: Bbox, **options: Any) -> None:
        self.axes.add_patch(Rectangle((box.x0, box.y0), box.width, box.height, **options))

    def _show(self, array: Any, box: Bbox, **options: Any) -> None:
        extent = (box.x0, box.x1, box.y1, box.y0)
        self.axes.imshow(array, extent=extent, aspect="auto", **options)


def thumbnail(path: str) -> Any:
    """Reads an image (h, w, 3) no larger than a cell shows; None if it cannot be read."""
    try:
        image = read_image(path)
    except (BadImageError, OSError):
        return None
    height, width = (max(1, round(side * DPI * 1.2)) for side in CELL)
    image.thumbnail((width, height), Image.Resampling.BILINEAR, reducing_gap=2.0)
    return np.asarray(image)


def spread(items: Sequence[int], most: int) -> list[int]:
    """Takes at most `most` items at even distances, the first and the last among them."""
    if len(items) <= most:
        return list(items)
    return [items[round(place)] for place in np.linspace(0, len(items) - 1, most)]
