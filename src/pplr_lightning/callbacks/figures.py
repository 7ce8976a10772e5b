"""Figures of what a run learns, drawn while it runs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

import numpy as np
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.loggers import Logger, TensorBoardLogger, WandbLogger
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from PIL import Image
from torch import Tensor

from pplr_lightning.atomic_write import write_whole
from pplr_lightning.callbacks.shared import harmless, run_folder, writes
from pplr_lightning.data import PPLRDataModule
from pplr_lightning.data.pseudo_labels import PseudoLabels
from pplr_lightning.functional.checks import check_counts
from pplr_lightning.methods import ReIDModule

if TYPE_CHECKING:  # what draws is loaded when something is drawn
    from pplr_lightning.callbacks.snapshot import Snapshot
    from pplr_lightning.visualization import Embedding

FigureName = Literal["ranking", "agreement", "clusters", "embedding", "label_quality", "refinement"]
NAMES: tuple[FigureName, ...] = (
    "ranking", "agreement", "clusters", "embedding", "label_quality", "refinement",
)  # fmt: skip
CAPTIONS = "captions.json"


class Figures(Callback):
    """Draws figures every n epochs and after the last, and hands them to every logger.

    They are written as `figures/<name>-epoch<k>.png` into the run's folder, with the captions in
    `figures/captions.json`. Rank 0 draws, nothing that it does changes what is trained, and a
    figure that cannot be drawn is a warning. Every epoch's cluster sizes and agreements go to
    Weights & Biases and TensorBoard as histograms.

    Args:
        every_n_epochs: Epochs from one drawing to the next; the last epoch is always drawn.
        names: What to draw; an empty list draws nothing.
        images: Training images, sampled, that are embedded for `embedding` and `refinement`.
        part: Part whose features `embedding` shows, 1 the uppermost.

    Raises:
        ValueError: An option is out of range.
    """

    def __init__(
        self,
        *,
        every_n_epochs: int = 10,
        names: tuple[FigureName, ...] = NAMES,
        images: int = 500,
        part: int = 1,
    ) -> None:
        check_counts("figures", every_n_epochs=every_n_epochs, images=images, part=part)
        unknown = sorted(set(names) - set(NAMES))
        if unknown:
            raise ValueError(
                f"figures.names: no figure {unknown[0]!r}; there are {', '.join(NAMES)}"
            )
        self.every_n_epochs = every_n_epochs
        self.names = tuple(names)
        self.images = images
        self.part = part
        self.before: Embedding | None = None  # at the first labelling
        self._undrawn: int | None = None  # the epoch that has ended since the last drawing

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Checks what can be known before any work; forgets another run's start.

        Raises:
            MisconfigurationException: The data module or the module is not of this library.
            ValueError: The network has no such part.
        """
        if stage != "fit":
            return
        self.before, self._undrawn = None, None
        data = getattr(trainer, "datamodule", None)
        if not isinstance(data, PPLRDataModule) or not isinstance(pl_module, ReIDModule):
            raise MisconfigurationException(
                "Figures draws what a PPLRModule or its kin learns from a PPLRDataModule: call "
                "trainer.fit(PPLRModule(...), datamodule=PPLRDataModule(...))"
            )
        if self.part > max(1, pl_module.network.num_parts):
            raise ValueError(
                f"figures.part={self.part}: the network has {pl_module.network.num_parts} parts"
            )

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Looks at the epoch's labels, which by now there are whatever the order of callbacks."""
        if batch_idx or not trainer.is_global_zero:
            return
        _log_histograms(trainer, trainer.datamodule.pseudo_labels)  # type: ignore[attr-defined]
        if "embedding" in self.names and self.before is None and writes(trainer):
            with harmless("figures: embedding is left out"):
                scene, epoch = self._scene(trainer, pl_module), trainer.current_epoch
                self.before = scene.embedding(f"first labelling, epoch {epoch}")

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Draws where it is time."""
        self._undrawn = trainer.current_epoch
        if (trainer.current_epoch + 1) % self.every_n_epochs == 0:
            self._draw(trainer, pl_module, trainer.current_epoch)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Draws the last epoch, if it was not drawn."""
        if self._undrawn is not None:
            self._draw(trainer, pl_module, self._undrawn)

    def state_dict(self) -> dict[str, Any]:
        """Keeps what was before, for a run that goes on."""
        return {"before": None if self.before is None else self.before._asdict()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Takes what a checkpoint kept."""
        from pplr_lightning.visualization import Embedding

        before = state_dict["before"]
        self.before = None if before is None else Embedding(**before)

    def _draw(self, trainer: Trainer, module: LightningModule, epoch: int) -> None:
        """Draws, writes and logs all figures, on rank 0."""
        self._undrawn = None
        if not self.names or not writes(trainer):
            return
        from pplr_lightning.visualization import caption_of, save_figure

        folder = run_folder(trainer) / "figures"
        captions = _read_captions(folder)
        figures = self._scene(trainer, module).figures(epoch, before=self.before)
        for name in self.names:
            with harmless(f"figures: {name} is left out"):
                figure = figures[name]()
                if figure is None:
                    continue
                path = folder / f"{name}-epoch{epoch}.png"
                save_figure(figure, path)
                captions[path.name] = caption_of(figure)
                for logger in trainer.loggers:
                    step = trainer.global_step
                    _log_picture(logger, name, path, caption=captions[path.name], step=step)
        with harmless("figures: captions are left out"):
            text = json.dumps(captions, indent=2, ensure_ascii=False)
            write_whole(folder / CAPTIONS, text + "\n")

    def _scene(self, trainer: Trainer, module: LightningModule) -> Snapshot:
        from pplr_lightning.callbacks.snapshot import Snapshot

        return Snapshot(trainer, cast(ReIDModule, module), images=self.images, part=self.part)


def _log_histograms(trainer: Trainer, labels: PseudoLabels) -> None:
    """Logs the clusters' sizes and each part's agreement."""
    values = {"cluster_size": torch.bincount(labels.classes[labels.classes >= 0])}
    if "agreement" in labels.columns:
        for part, agreement in enumerate(labels.columns["agreement"].unbind(1), start=1):
            values[f"agreement_part{part}"] = agreement
    for logger in trainer.loggers:
        for name, histogram in values.items():
            _log_histogram(logger, name, histogram, step=trainer.global_step)


def _log_picture(logger: Logger, name: str, path: Path, *, caption: str, step: int) -> None:
    """Hands a PNG to Weights & Biases or TensorBoard as `figures/<name>`; others take none."""
    if isinstance(logger, WandbLogger):
        logger.log_image(f"figures/{name}", [str(path)], step=step, caption=[caption])
    elif isinstance(logger, TensorBoardLogger):
        with Image.open(path) as image:
            pixels = np.asarray(image.convert("RGB"))
        logger.experiment.add_image(f"figures/{name}", pixels, step, dataformats="HWC")


def _log_histogram(logger: Logger, name: str, values: Tensor, *, step: int) -> None:
    """Hands values (N,) to Weights & Biases or TensorBoard; others take no histograms."""
    if isinstance(logger, WandbLogger):
        import wandb

        histogram = wandb.Histogram(values.tolist())
        logger.log_metrics({f"histograms/{name}": histogram}, step)  # type: ignore[dict-item]
    elif isinstance(logger, TensorBoardLogger):
        logger.experiment.add_histogram(f"histograms/{name}", values, step)


def _read_captions(folder: Path) -> dict[str, str]:
    """Reads the captions of what was drawn before, by a run that this one goes on with."""
    try:
        captions = json.loads((folder / CAPTIONS).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        captions = None
    return captions if isinstance(captions, dict) else {}
