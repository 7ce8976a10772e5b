"""The labels' quality over the epochs."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from pplr_lightning.visualization.layout import BLACK, new_page, on_white

LINES = {
    "marker": ("o", "s", "^", "D", "v", "P"),
    "linestyle": ("-", "--", "-.", ":", "-", "--"),
    "color": ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#8f7f00"),
}
AGREEMENT = "cross agreement, mean"
WORDS = {"ari": "ARI", "precision": "pairwise precision", "recall": "pairwise recall"}


@on_white
def label_quality_figure(
    history: Sequence[dict[str, float]], *, identities: int | None = None
) -> Figure:
    """Draws clusters, quality, outliers and agreement over the epochs.

    Args:
        history: `label_statistics` of each epoch, and its number as `epoch`.
        identities: True number of identities, where known.
    """
    width, height = 8.6, 4.9
    figure, (low, high) = new_page(
        width,
        height,
        title="Label quality over the epochs",
        caption=(
            f"Labels made at the start of {len(history)} epoch{'s' * (len(history) != 1)}. "
            "ARI, precision and recall compare clusters with true identities over clustered images "
            "only, so read them beside the share of outliers; they are for analysis, nothing is "
            "trained on or chosen by them."
        ),
    )
    grid = figure.add_gridspec(
        2, 2, left=0.55 / width, right=1 - 0.15 / width, bottom=low + 0.4 * (high - low) / height,
        top=high - 0.25 * (high - low) / height, wspace=0.17, hspace=0.42,
    )  # fmt: skip
    parts = sorted(
        {name for row in history for name in row if name.startswith("agreement_part")},
        key=lambda name: int(name.removeprefix("agreement_part")),
    )
    panels = {
        "clusters": ["clusters"],
        "against true identities": [name for name in WORDS if any(name in row for row in history)],
        "share of outliers": ["outliers"],
        AGREEMENT: parts,
    }
    for number, (title, names) in enumerate(panels.items()):
        axes = figure.add_subplot(grid[divmod(number, 2)])
        axes.set_title(title, fontsize=8.5)
        axes.grid(alpha=0.3, linewidth=0.5)
        missing = "not scored" if title == AGREEMENT else "identities are not known"
        _plot(axes, history, names, missing)
        if title == "clusters" and history:
            _mark_identities(axes, identities)
        elif names and history:
            axes.set_ylim(0, 1.02)
        if len(axes.lines) > 1:
            axes.legend(framealpha=0.8, handlelength=2.6)
    return figure


def _plot(axes: Axes, history: Sequence[dict[str, float]], names: list[str], missing: str) -> None:
    if not names or not history:
        words = missing if history else "no labels yet"
        axes.text(0.5, 0.5, words, ha="center", va="center", transform=axes.transAxes)
        axes.set(xticks=[], yticks=[])
        return
    axes.set_prop_cycle(**LINES)
    for name in names:
        rows = [row for row in history if name in row]
        epochs, values = [row["epoch"] for row in rows], [row[name] for row in rows]
        words = WORDS.get(name, name.replace("agreement_part", "part "))
        axes.plot(
            epochs, values, markersize=3.5, markevery=max(1, len(rows) // 12), linewidth=1.3,
            label=words,
        )  # fmt: skip
    axes.set_xlabel("epoch", labelpad=1)
    axes.set_xlim(history[0]["epoch"] - 0.5, history[-1]["epoch"] + 0.5)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))


def _mark_identities(axes: Axes, identities: int | None) -> None:
    if identities is not None:
        axes.axhline(identities, color=BLACK, linewidth=0.9, linestyle=":", label="true identities")
    axes.set_ylim(0, 1.08 * max(axes.dataLim.ymax, identities or 1, 1))
    axes.yaxis.set_major_locator(MaxNLocator(nbins=6, integer=True, steps=[1, 2, 5, 10]))
