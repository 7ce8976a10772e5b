"""What a run shows of its evaluations."""

from __future__ import annotations

from lightning.pytorch.utilities import rank_zero_only
from rich.console import Console
from rich.table import Table

from pplr_lightning.evaluation.metric import RERANKED


def summarize(history: list[dict[str, float]]) -> dict[str, dict[str, float]]:
    """Picks the first, the best (by mAP) and the last of a run's evaluations."""
    return {
        "first": history[0],
        "best": max(history, key=lambda values: values["mAP"]),
        "last": history[-1],
    }


@rank_zero_only
def print_table(rows: dict[str, dict[str, float]], *, caption: str) -> None:
    """Prints one line per named evaluation, in percent, and one for its re-ranked gallery.

    Args:
        rows: What `ReIDRetrieval` computed, by name, with the epoch where there is one.
        caption: Which features were compared, and how the gallery was re-ranked.
    """
    lines: dict[str, dict[str, float]] = {}
    for label, values in rows.items():
        epoch = values.get("epoch")
        when = "" if epoch is None else " (before training)" if epoch < 0 else f" (epoch {epoch})"
        for name, value in values.items():
            if name != "epoch":
                kind = ", re-ranked" if name.startswith(RERANKED) else ""
                line = lines.setdefault(label + when + kind, {})
                line[name.removeprefix(RERANKED)] = value
    names = list(dict.fromkeys(name for line in lines.values() for name in line))
    table = Table(title="Retrieval, %", caption=caption)
    table.add_column("")
    for name in names:
        table.add_column(name, justify="right")
    for label, line in lines.items():
        table.add_row(label, *(f"{100 * line[n]:.1f}" if n in line else "" for n in names))
    Console().print(table)
