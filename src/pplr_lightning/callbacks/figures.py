"""Figures of what a run learns, drawn while it runs."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, cast

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_warn
from lightning.pytorch.utilities.exceptions import MisconfigurationException

from pplr_lightning.atomic_write import write_whole
from pplr_lightning.callbacks.media import log_histogram, log_picture
from pplr_lightning.callbacks.run_folder import run_folder
from pplr_lightning.callbacks.snapshot import Snapshot
from pplr_lightning.data import PPLRDataModule
from pplr_lightning.data.pseudo_labels import PseudoLabels
from pplr_lightning.evaluation.label_quality import label_statistics
from pplr_lightning.methods import ReIDModule
from pplr_lightning.visualization import Embedding, caption_of, save_figure

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
        for name, value in (("every_n_epochs", every_n_epochs), ("images", images), ("part", part)):
            if value < 1:
                raise ValueError(f"figures.{name}={value}: must be at least 1")
        unknown = sorted(set(names) - set(NAMES))
        if unknown:
            raise ValueError(
                f"figures.names: no figure {unknown[0]!r}; there are {', '.join(NAMES)}"
            )
        self.every_n_epochs = every_n_epochs
        self.names = tuple(names)
        self.images = images
        self.part = part
        self.history: list[dict[str, float]] = []  # the labels' statistics, by epoch
        self.before: Embedding | None = None  # at the first labelling
        self._undrawn: int | None = None  # the epoch that has ended since the last drawing

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Checks what can be known before any work.

        Raises:
            MisconfigurationException: The data module or the module is not of this library.
            ValueError: The network has no such part.
        """
        if stage != "fit":
            return
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
        """Takes the epoch's labels, which by now there are whatever the order of callbacks."""
        if batch_idx or not trainer.is_global_zero:
            return
        scene, epoch = self._scene(trainer, pl_module), trainer.current_epoch
        row = {"epoch": float(epoch), **label_statistics(scene.labels, scene.person_ids)}
        self.history = [one for one in self.history if one["epoch"] < epoch] + [row]
        _log_histograms(trainer, scene.labels)
        if "embedding" in self.names and self.before is None and not _is_trial(trainer):
            with _harmless("embedding"):
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
        before = None if self.before is None else self.before._asdict()
        return {"history": self.history, "before": before}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Takes what a checkpoint kept."""
        before = state_dict["before"]
        self.history = state_dict["history"]
        self.before = None if before is None else Embedding(**before)

    def _draw(self, trainer: Trainer, module: LightningModule, epoch: int) -> None:
        """Draws, writes and logs all figures, on rank 0."""
        self._undrawn = None
        if not self.names or not trainer.is_global_zero or _is_trial(trainer):
            return
        folder = run_folder(trainer) / "figures"
        captions = _read_captions(folder)
        figures = self._scene(trainer, module).figures(
            epoch, history=self.history, before=self.before
        )
        for name in self.names:
            with _harmless(name):
                figure = figures[name]()
                if figure is None:
                    continue
                path = folder / f"{name}-epoch{epoch}.png"
                save_figure(figure, path)
                captions[path.name] = caption_of(figure)
                for logger in trainer.loggers:
                    step = trainer.global_step
                    log_picture(logger, name, path, caption=captions[path.name], step=step)
        with _harmless("captions"):
            text = json.dumps(captions, indent=2, ensure_ascii=False)
            write_whole(folder / CAPTIONS, text + "\n")

    def _scene(self, trainer: Trainer, module: LightningModule) -> Snapshot:
        return Snapshot(trainer, cast(ReIDModule, module), images=self.images, part=self.part)


def _log_histograms(trainer: Trainer, labels: PseudoLabels) -> None:
    """Logs the clusters' sizes and each part's agreement."""
    values = {"cluster_size": torch.bincount(labels.classes[labels.classes >= 0])}
    if "agreement" in labels.columns:
        for part, agreement in enumerate(labels.columns["agreement"].unbind(1), start=1):
            values[f"agreement_part{part}"] = agreement
    for logger in trainer.loggers:
        for name, histogram in values.items():
            log_histogram(logger, name, histogram, step=trainer.global_step)


def _is_trial(trainer: Trainer) -> bool:
    return bool(getattr(trainer, "fast_dev_run", False))


def _read_captions(folder: Path) -> dict[str, str]:
    """Reads the captions of what was drawn before, by a run that this one goes on with."""
    try:
        captions = json.loads((folder / CAPTIONS).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        captions = None
    return captions if isinstance(captions, dict) else {}


@contextmanager
def _harmless(name: str) -> Iterator[None]:
    """Turns an error into a warning: a picture is not worth a run."""
    try:
        yield
    except Exception as error:
        rank_zero_warn(f"figures: {name} is left out, {type(error).__name__}: {error}")
