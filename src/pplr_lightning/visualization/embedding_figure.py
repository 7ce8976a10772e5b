"""t-SNE of a part's features, before and after training."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from scipy.optimize import linear_sum_assignment
from threadpoolctl import threadpool_limits
from torch import Tensor

from pplr_lightning.visualization.layout import BLACK, GREY, new_page, on_white, sampled

# Okabe and Ito's colours, which the colour-blind can tell apart.
COLOURS = ("#e69f00", "#56b4e9", "#009e73", "#0072b2", "#d55e00", "#cc79a7", "#8f7f00")
MARKERS = ("o", "^", "s", "D", "v", "P")
LOOKS = len(COLOURS) * len(MARKERS)
LOW = 0.2  # share of the points that are marked as of low agreement


class Embedding(NamedTuple):
    """A sample of S images in the plane.

    Attributes:
        points: Coordinates, (S, 2).
        labels: Clusters, -1 for outliers, (S,).
        agreement: Cross agreement of the part, (S,), in [0, 1]; None where it is not scored.
        indices: Which of the N training images these are, (S,).
        name: Said above the panel.
    """

    points: Tensor
    labels: Tensor
    agreement: Tensor | None
    indices: Tensor
    name: str


def embed(features: Tensor, *, seed: int = 0) -> Tensor:
    """Computes the t-SNE (van der Maaten and Hinton, 2008) of features (S, D), (S, 2)."""
    from sklearn.manifold import TSNE  # takes long to import

    rows = features.double().numpy()
    if len(rows) < 5 or not np.ptp(rows, axis=0).any():  # too few to speak of, or all the same
        return torch.nn.functional.pad(features[:, :2].float(), (0, max(0, 2 - rows.shape[1])))
    perplexity = min(30.0, (len(rows) - 1) / 3)
    start = "pca" if rows.shape[1] > 1 else "random"
    # 500 steps: twice as many lower its divergence by less than a hundredth.
    tsne = TSNE(perplexity=perplexity, init=start, max_iter=500, random_state=seed)
    # One thread: so few points give several nothing to do but to wait for each other.
    with threadpool_limits(1, user_api="openmp"):
        return torch.from_numpy(tsne.fit_transform(rows)).float()


@on_white
def embedding_figure(panels: Sequence[Embedding], *, total: int, part: str) -> Figure:
    """Draws one panel for each stage of the training.

    Args:
        panels: In the order of time.
        total: Training images, N.
        part: Which part's features these are, in words.
    """
    shown = max((len(panel.points) for panel in panels), default=0)
    width, height = 4.6 * max(len(panels), 1) + 1.3, 4.5
    scored = any(panel.agreement is not None for panel in panels)
    rings = (
        f" Black rings: the {LOW:.0%} of the panel's images whose agreement of this part is lowest."
        if scored
        else ""
    )
    alike = "; clusters that share most images before and after look the same"
    figure, (low, high) = new_page(
        width,
        height,
        title="Features, t-SNE",
        caption=(
            f"Features of {part}, of {sampled(shown, total, 'training images')}. "
            f"Colour and shape: the cluster{alike if len(panels) > 1 else ''}. From {LOOKS + 1} "
            f"clusters on the looks repeat.{rings} Small grey crosses: outliers. Labels of an "
            "epoch are made at its start. Axes of t-SNE have no meaning, and those of two panels "
            "no relation."
        ),
    )
    grid = figure.add_gridspec(
        1, max(len(panels), 1), left=0.12 / width, right=1 - 1.3 / width, bottom=low + 0.01,
        top=high - 0.22 * (high - low) / height, wspace=0.04,
    )  # fmt: skip
    for column, (panel, looks) in enumerate(zip(panels, _looks(panels), strict=True)):
        axes = figure.add_subplot(grid[0, column])
        axes.set(xticks=[], yticks=[])
        axes.set_title(f"{panel.name}, {len(looks)} clusters here", fontsize=8.5)
        _scatter(axes, panel, looks)
    figure.legend(handles=_legend(scored), loc="center right", frameon=False, borderaxespad=0.2)
    return figure


def _scatter(axes: Axes, panel: Embedding, looks: dict[int, int]) -> None:
    x, y = panel.points.unbind(1)
    clustered = panel.labels >= 0
    if not len(x):
        axes.text(0.5, 0.5, "nothing to show", ha="center", transform=axes.transAxes)
        return
    outside = ~clustered
    axes.scatter(x[outside], y[outside], s=9, marker="x", linewidths=0.7, color=GREY)
    own = torch.tensor([looks.get(label, -1) for label in panel.labels.tolist()])
    for number in sorted(set(looks.values())):
        mine = own == number
        colour, marker = COLOURS[number % len(COLOURS)], MARKERS[number // len(COLOURS)]
        axes.scatter(x[mine], y[mine], s=13, marker=marker, color=colour, linewidths=0)
    if panel.agreement is None:
        return
    low = panel.agreement < panel.agreement.quantile(LOW)
    ring: dict[str, Any] = {"s": 34, "facecolors": "none", "edgecolors": BLACK, "linewidths": 0.6}
    axes.scatter(x[low], y[low], **ring)


def _legend(scored: bool) -> list[Line2D]:
    none: dict[str, Any] = {"linestyle": "none"}
    return [
        Line2D([], [], marker="o", color=COLOURS[0], markersize=4, label="one cluster", **none),
        Line2D([], [], marker="^", color=COLOURS[3], markersize=4, label="another", **none),
        *([
            Line2D(
                [], [], marker="o", color=BLACK, fillstyle="none", markersize=6,
                label="low agreement", **none,
            )
        ] if scored else []),
        Line2D([], [], marker="x", color=GREY, markersize=4, label="outlier", **none),
    ]  # fmt: skip


def _looks(panels: Sequence[Embedding]) -> list[dict[int, int]]:
    """Gives each panel's clusters numbers of looks, after those of the last panel."""
    looks: list[dict[int, int]] = []
    for panel in panels:
        clusters = torch.unique(panel.labels[panel.labels >= 0]).tolist()
        looks.append({cluster: place % LOOKS for place, cluster in enumerate(clusters)})
    for panel, own in zip(panels[:-1], looks, strict=False):
        own |= {cluster: looks[-1][same] for cluster, same in _matched(panel, panels[-1]).items()}
    return looks


def _matched(panel: Embedding, last: Embedding) -> dict[int, int]:
    """Pairs clusters of two panels so that pairs share as many images as possible."""
    there = dict(zip(last.indices.tolist(), last.labels.tolist(), strict=True))
    pairs = [
        (label, there[index])
        for index, label in zip(panel.indices.tolist(), panel.labels.tolist(), strict=True)
        if label >= 0 and there.get(index, -1) >= 0
    ]
    if not pairs:
        return {}
    shared = np.zeros([1 + max(side) for side in zip(*pairs, strict=True)])
    np.add.at(shared, tuple(zip(*pairs, strict=True)), 1)
    rows, columns = linear_sum_assignment(shared, maximize=True)
    kept = shared[rows, columns] > 0
    return dict(zip(rows[kept].tolist(), columns[kept].tolist(), strict=True))
