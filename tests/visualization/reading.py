"""Reading a figure: what is written, and whether it can be read."""

from __future__ import annotations

import itertools
from pathlib import Path

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Text
from PIL import Image

from pplr_lightning.visualization import caption_of, save_figure


def texts(figure: Figure) -> list[str]:
    """What is written, without what is empty."""
    return [text.get_text() for text in figure.findobj(Text) if text.get_text().strip()]


def images(figure: Figure) -> list:
    return [image for axes in figure.axes for image in axes.get_images()]


def check_readable(figure: Figure, folder: Path) -> None:
    """Draws and saves it; no text may be cut off or lie over another, and the paper is white."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    renderer = canvas.get_renderer()
    beyond = {label for axes in figure.axes for label in _labels_out_of_view(axes)}
    written = {
        text: text.get_window_extent(renderer)
        for text in figure.findobj(Text)
        if text.get_text().strip() and text.get_visible() and text not in beyond
    }
    for text, box in written.items():
        inside = (
            box.x0 >= 0
            and box.y0 >= 0
            and box.x1 <= figure.bbox.x1 + 0.5
            and box.y1 <= figure.bbox.y1 + 0.5
        )
        assert inside, f"cut off: {text.get_text()!r}"
    for (one, first), (other, second) in itertools.combinations(written.items(), 2):
        overlap = (
            min(first.x1, second.x1) - max(first.x0, second.x0) > 0.5
            and min(first.y1, second.y1) - max(first.y0, second.y0) > 0.5
        )
        assert not overlap, f"{one.get_text()!r} lies over {other.get_text()!r}"
    save_figure(figure, folder / "figure.png")
    with Image.open(folder / "figure.png") as image:
        assert image.info["Description"] == caption_of(figure)
        assert image.convert("RGB").getpixel((0, 0)) == (255, 255, 255)
        assert 400 <= image.width <= 1800
        assert 200 <= image.height <= 1800


def _labels_out_of_view(axes) -> list[Text]:
    labels = []
    for axis in (axes.xaxis, axes.yaxis):
        low, high = sorted(axis.get_view_interval())
        for tick in axis.get_major_ticks():
            if not low <= tick.get_loc() <= high or not axes.axison:
                labels += [tick.label1, tick.label2]
    return labels
