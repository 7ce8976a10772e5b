"""Layers of the backbone that do not learn, in the first epochs or at all."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, cast

import torch
from lightning.pytorch import Callback, LightningModule, Trainer

from pplr_lightning.methods import ReIDModule


class FrozenLayers(Callback):
    """Keeps layers of the backbone as they are: weights, moments and running statistics.

    Lightning's `BackboneFinetuning` does not fit: it wants the backbone in another place, and adds
    parameters to the optimiser that neither a schedule nor several processes know of. Here the
    gradients of these layers are dropped before each step, which is right on any number of
    processes and after a restart, and saves no time.

    Args:
        layers: Beginnings of names of the backbone's parameters, such as `conv1`, `bn1`, `layer1`
            or `blocks.0.`; empty for all of them.
        epochs: For how many epochs; null for the whole run.

    Raises:
        ValueError: At the start of a training: a layer is none of the backbone's.
    """

    def __init__(self, layers: Sequence[str] = (), epochs: int | None = None) -> None:
        self.layers = tuple(layers)
        self.epochs = epochs

    def _is_on(self, trainer: Trainer) -> bool:
        return self.epochs is None or trainer.current_epoch < self.epochs

    def _holds(self, name: str) -> bool:
        return not self.layers or name.startswith(self.layers)

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Checks the names."""
        backbone = cast(ReIDModule, pl_module).network.backbone
        names = [name for name, _ in backbone.named_parameters()]
        for layer in self.layers:
            if not any(name.startswith(layer) for name in names):
                known = ", ".join(dict.fromkeys(name.partition(".")[0] for name in names))
                raise ValueError(f"FrozenLayers.layers: the backbone has no {layer!r} but {known}")

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Has the layers normalise as in evaluation, while they are frozen."""
        on = self._is_on(trainer)
        for name, module in _of_backbones(pl_module, "named_modules"):
            # Its own parameters, of all modules that have some; others below it see to themselves.
            if any(True for _ in module.parameters(recurse=False)) and self._holds(f"{name}."):
                module.training = not on

    def on_before_optimizer_step(
        self, trainer: Trainer, pl_module: LightningModule, optimizer: torch.optim.Optimizer
    ) -> None:
        """Drops the gradients: an optimiser leaves alone what has none."""
        if not self._is_on(trainer):
            return
        for name, parameter in _of_backbones(pl_module, "named_parameters"):
            if self._holds(name):
                parameter.grad = None


def _of_backbones(pl_module: LightningModule, what: str) -> Iterator[tuple[str, Any]]:
    """Goes through the backbones of all networks, a mean teacher's beside its student's."""
    for network in cast(ReIDModule, pl_module).all_networks:
        yield from getattr(network.backbone, what)()
