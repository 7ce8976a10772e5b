"""Cross agreement: which parts of which images the global feature agrees with."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from torch import Tensor

from pplr_lightning.data import Sample
from pplr_lightning.visualization.layout import Sheet, on_white, sample, sampled, spread

ROWS, COLUMNS = 3, 10
DRAWN_FROM = 2000  # images that are sorted
COLOURS = "viridis"  # readable in grey and by the colour-blind


@on_white
def agreement_figure(
    samples: Sequence[Sample], agreement: Tensor, *, when: str = "", seed: int = 0
) -> Figure:
    """Draws images from the highest agreement to the lowest, with each part's as a mask over it.

    Args:
        samples: N images.
        agreement: Cross agreement of their P parts, (N, P), in [0, 1].
        when: Said in the title.
        seed: Of the sample.
    """
    drawn = sample(len(samples), DRAWN_FROM, seed)
    means = agreement[drawn].mean(dim=1)
    order = [drawn[place] for place in means.argsort(descending=True, stable=True).tolist()]
    shown = spread(order, ROWS * COLUMNS)
    highest = float(agreement[shown].max()) if shown else 1.0
    sheet = Sheet(
        -(-len(shown) // COLUMNS),
        COLUMNS,
        title=f"Cross agreement{when and ', ' + when}",
        caption=(
            f"{len(shown)} images at even distances from the highest mean agreement to the lowest "
            f"of {sampled(len(drawn), len(samples), 'images')}. The colour of a stripe is the "
            "agreement of this part with the global feature: the share of the neighbours found "
            "by either that both find; undiluted at the right edge. Below an image: the mean over "
            "its parts."
        ),
        names=0.0,
        right=0.75,
    )
    colours: dict[str, Any] = {"cmap": COLOURS, "norm": Normalize(0, max(highest, 1e-6))}
    for number, index in enumerate(shown):
        row, column = divmod(number, COLUMNS)
        words = f"{float(agreement[index].mean()):.2f}"
        place = sheet.image(row, column, samples[index].path, words=words)
        sheet.mask(place, agreement[index], **colours)
    if shown:
        box = sheet.axes.get_position()
        width = sheet.axes.get_xlim()[1]
        bar = sheet.figure.add_axes(
            (1 - 0.65 / width, box.y0 + 0.15 * box.height, 0.13 / width, 0.7 * box.height)
        )
        sheet.figure.colorbar(ScalarMappable(**colours), cax=bar, label="agreement")
    return sheet.figure
