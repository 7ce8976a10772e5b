"""What a training has come to at one moment, and the figures of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any, cast

import torch
from lightning.pytorch import Callback, Trainer
from matplotlib.figure import Figure
from torch import Tensor

from pplr_lightning.callbacks.evaluation import RetrievalEvaluation
from pplr_lightning.data import PPLRDataModule
from pplr_lightning.data.datasets import Splits
from pplr_lightning.module import PPLRModule
from pplr_lightning.pseudo_labels import PseudoLabels
from pplr_lightning.visualization import (
    Embedding,
    agreement_figure,
    clusters_figure,
    embed,
    embedding_figure,
    label_quality_figure,
    ranking_figure,
    refinement_figure,
)
from pplr_lightning.visualization.page import sample
from pplr_lightning.visualization.view import View, view_images


class Scene:
    """Labels, images and model of the current epoch.

    Args:
        trainer: In `fit`, with the epoch's labels in its data module.
        module: Whose model is looked at.
        images: Training images, sampled, that are embedded.
        part: Part whose features are shown, 1 the uppermost.
    """

    def __init__(self, trainer: Trainer, module: PPLRModule, *, images: int, part: int) -> None:
        self.trainer = trainer
        self.module = module
        self.images = images
        self.part = part
        self.data = cast(PPLRDataModule, trainer.datamodule)  # type: ignore[attr-defined]
        self.labels = cast(PseudoLabels, self.data.pseudo_labels)
        self.samples = self.data.train_samples

    @cached_property
    def person_ids(self) -> Tensor:
        """The true identities, (N,)."""
        return torch.tensor([one.person_id for one in self.samples])

    @cached_property
    def view(self) -> View:
        """What the model makes of the sampled images; computed once, for two figures."""
        with self.trainer.precision_plugin.forward_context():
            return view_images(
                self.module.model,
                self.samples,
                sample(len(self.samples), self.images, self.data.seed),
                self.data.eval_transform,
                self.labels,
                beta=self.module.beta,
                batch_size=self.data.eval_batch_size,
            )

    def embedding(self, name: str) -> Embedding:
        """Computes the t-SNE of the part's features."""
        rows, part = self.view.indices, self.part - 1
        points = embed(self.view.part_features[:, :, part], seed=self.data.seed)
        agreement = self.labels.agreement[rows, part]
        return Embedding(points, self.labels.labels[rows], agreement, rows, name)

    def figures(
        self, epoch: int, *, history: Sequence[dict[str, float]], before: Embedding | None
    ) -> dict[str, Callable[[], Figure | None]]:
        """Returns what draws each figure; one that has nothing to show returns None.

        Args:
            epoch: That has ended.
            history: The labels' statistics up to now.
            before: The embedding at the first labelling.
        """
        known = bool((self.person_ids >= 0).all())
        options: dict[str, Any] = {"when": f"epoch {epoch}", "seed": self.data.seed}
        return {
            "ranking": self._ranking,
            "agreement": lambda: agreement_figure(self.samples, self.labels.agreement, **options),
            "clusters": lambda: clusters_figure(self.samples, self.labels.labels, **options),
            "embedding": lambda: embedding_figure(
                [*([before] if before else []), self.embedding(f"after epoch {epoch}")],
                total=len(self.samples),
                part=f"part {self.part} of {self.module.model.num_parts}, counted from above",
            ),
            "label_quality": lambda: label_quality_figure(
                history, identities=len(self.person_ids.unique()) if known else None
            ),
            "refinement": lambda: self._refinement(options),
        }

    def _ranking(self) -> Figure | None:
        """Draws the last evaluation's rankings, if there was one."""
        callbacks: list[Callback] = self.trainer.callbacks  # type: ignore[attr-defined]
        for callback in callbacks:
            if isinstance(callback, RetrievalEvaluation) and callback.metric.rankings:
                epoch = int(callback.history[-1]["epoch"])
                splits = cast(Splits, self.data.splits)
                return ranking_figure(
                    callback.metric.rankings,
                    splits.query,
                    splits.gallery,
                    when="before training" if epoch < 0 else f"after epoch {epoch}",
                )
        return None

    def _refinement(self, options: dict[str, Any]) -> Figure | None:
        """Draws what PGLR changed, where it is on."""
        if self.module.beta == 1:
            return None
        clustered = self.labels.labels[self.view.indices] >= 0
        return refinement_figure(
            self.samples,
            self.labels.labels,
            self.view.indices[clustered],
            self.view.refined[clustered],
            beta=self.module.beta,
            **options,
        )
