"""Prototypes that follow the features trained on, by momentum instead of by gradients."""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor, nn

from pplr_lightning.functional import class_means, update_prototypes

Rule = Literal["every", "hardest", "mean"]


class Memory(nn.Module):
    """One unit row per class, as Cluster Contrast has it, or per image, as SpCL.

    The rows are neither parameter nor buffer: their number changes from epoch to epoch, and DDP
    would broadcast buffers in every step. Checkpoints hold them as extra state. Every rank gives
    `update` the same batch, and so has the same rows.

    Args:
        momentum: Share of the old row in an update, in [0, 1).
        rule: Which images move a row, as of `functional.update_prototypes`.

    Attributes:
        rows: L2-normalised, (K, D).
        classes: Where rows are of images, the class of each, 0 to C - 1, -1 for none, (K,);
            otherwise None.

    Raises:
        ValueError: An option is out of range.

    Example:
        >>> memory = Memory(momentum=0.0)
        >>> memory.reset(torch.eye(2))
        >>> memory.update(torch.tensor([[0.6, 0.8]]), torch.tensor([0]))
        >>> memory.rows
        tensor([[0.6000, 0.8000],
                [0.0000, 1.0000]])
    """

    def __init__(self, *, momentum: float, rule: Rule = "every") -> None:
        super().__init__()
        if not 0 <= momentum < 1:
            raise ValueError(f"momentum={momentum}: must lie in [0, 1)")
        if rule not in ("every", "hardest", "mean"):
            raise ValueError(f"rule={rule!r}: choose every, hardest or mean")
        self.momentum = momentum
        self.rule: Rule = rule
        self.rows = torch.empty(0, 0)
        self.classes: Tensor | None = None
        self._num_classes = 0

    def reset(self, rows: Tensor) -> None:
        """Starts from unit rows (K, D)."""
        self.rows = rows.detach().clone()
        self.classes = None

    def classify(self, classes: Tensor) -> None:
        """Has rows of the same class, (K,), make up its prototype."""
        self.classes = classes
        self._num_classes = int(classes.max()) + 1

    def rows_for(self, features: Tensor) -> Tensor:
        """Returns the rows on the device and of the type of some features, as which they stay."""
        self.rows = self.rows.to(features)
        return self.rows

    def prototypes_for(self, features: Tensor) -> Tensor:
        """Returns what stands for a class: its row, or its rows' mean, not normalised, (C, D)."""
        rows = self.rows_for(features)
        if self.classes is None:
            return rows
        self.classes = self.classes.to(rows.device)  # once, or every step would wait for it
        return class_means(rows, self.classes, self._num_classes)

    @torch.no_grad()
    def update(self, features: Tensor, targets: Tensor) -> None:
        """Moves the rows `targets` (B,) towards unit features (B, D) of their class or image."""
        self.rows = update_prototypes(
            self.rows_for(features), features, targets, momentum=self.momentum, rule=self.rule
        )

    def get_extra_state(self) -> dict[str, Any]:
        """Saves the rows and their classes."""
        classes = None if self.classes is None else self.classes.cpu()
        return {"rows": self.rows.cpu(), "classes": classes}

    def set_extra_state(self, state: dict[str, Any]) -> None:
        """Restores them."""
        self.reset(state["rows"])
        if state.get("classes") is not None:
            self.classify(state["classes"])
