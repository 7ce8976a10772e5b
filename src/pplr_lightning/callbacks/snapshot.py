"""What a training has come to at one moment, and the figures of it."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import Any, cast

import torch
from lightning.pytorch import Trainer
from matplotlib.figure import Figure
from torch import Tensor

from pplr_lightning.callbacks.retrieval_evaluation import RetrievalEvaluation
from pplr_lightning.callbacks.shared import History, find
from pplr_lightning.data import PPLRDataModule
from pplr_lightning.data.datasets import Splits
from pplr_lightning.data.pseudo_labels import PseudoLabels
from pplr_lightning.methods import PPLRModule, ReIDModule
from pplr_lightning.networks import PartOutput
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
from pplr_lightning.visualization.layout import sample
from pplr_lightning.visualization.view import View, view_images


class Snapshot:
    """Labels, images and network of the current epoch.

    Args:
        trainer: In `fit`, with the epoch's labels in its data module.
        module: Whose network is looked at.
        images: Training images, sampled, that are embedded.
        part: Part whose features are shown, 1 the uppermost.
    """

    def __init__(self, trainer: Trainer, module: ReIDModule, *, images: int, part: int) -> None:
        self.trainer = trainer
        self.module = module
        self.images = images
        self.part = part
        self.data = cast(PPLRDataModule, trainer.datamodule)  # type: ignore[attr-defined]
        self.labels = cast(PseudoLabels, self.data.pseudo_labels)
        self.samples = self.data.train_samples

    @property
    def agreement(self) -> Tensor | None:
        """Cross agreement of the images, (N, P), where the method scores it."""
        agreement = self.labels.columns.get("agreement")
        return agreement if agreement is not None and agreement.numel() else None

    @cached_property
    def person_ids(self) -> Tensor:
        """The true identities, (N,)."""
        return torch.tensor([one.person_id for one in self.samples])

    @cached_property
    def view(self) -> View:
        """What the network makes of the sampled images; computed once, for two figures."""
        with self.trainer.precision_plugin.forward_context():
            return view_images(
                self.module.network,
                self.samples,
                sample(len(self.samples), self.images, self.data.seed),
                self.data.eval_transform,
                refine=self._refine if self._refines else None,
                batch_size=self.data.eval_batch_size,
            )

    @property
    def _refines(self) -> bool:
        return isinstance(self.module, PPLRModule) and self.module.beta < 1

    def _refine(self, output: PartOutput, rows: Tensor) -> Tensor:
        targets = self.labels.classes[rows].clamp(min=0)
        agreement = self.labels.columns["agreement"][rows]
        return cast(PPLRModule, self.module).refine(output, targets, agreement)

    def embedding(self, name: str) -> Embedding:
        """Computes the t-SNE of the part's features, without parts of the global ones."""
        rows, part = self.view.indices, self.part - 1
        features, agreement = self.view.features, None
        if self.module.network.num_parts:
            features = self.view.part_features[:, :, part]
        if self.agreement is not None:
            agreement = self.agreement[rows, part]
        points = embed(features, seed=self.data.seed)
        return Embedding(points, self.labels.classes[rows], agreement, rows, name)

    def figures(
        self, epoch: int, *, before: Embedding | None
    ) -> dict[str, Callable[[], Figure | None]]:
        """Returns what draws each figure; one that has nothing to show returns None.

        Args:
            epoch: That has ended.
            before: The embedding at the first labelling.
        """
        known = bool((self.person_ids >= 0).all())
        options: dict[str, Any] = {"when": f"epoch {epoch}", "seed": self.data.seed}
        return {
            "ranking": self._ranking,
            "agreement": lambda: (
                None
                if self.agreement is None
                else agreement_figure(self.samples, self.agreement, **options)
            ),
            "clusters": lambda: clusters_figure(self.samples, self.labels.classes, **options),
            "embedding": lambda: embedding_figure(
                [*([before] if before else []), self.embedding(f"after epoch {epoch}")],
                total=len(self.samples),
                part=self._space,
            ),
            "label_quality": lambda: label_quality_figure(
                History.of(self.trainer).under("labels/"),
                identities=len(self.person_ids.unique()) if known else None,
            ),
            "refinement": lambda: self._refinement(options),
        }

    @property
    def _space(self) -> str:
        parts = self.module.network.num_parts
        return f"part {self.part} of {parts}, counted from above" if parts else "the whole image"

    def _ranking(self) -> Figure | None:
        """Draws the last evaluation's rankings, if there was one."""
        evaluation = find(self.trainer, RetrievalEvaluation)
        if evaluation is None or not (evaluation.history and evaluation.metric.rankings):
            return None
        epoch = evaluation.history[-1]["epoch"]
        splits = evaluation.compared(cast(Splits, self.data.splits))
        return ranking_figure(
            evaluation.metric.rankings,
            splits.query,
            splits.gallery,
            when="before training" if epoch < 0 else f"after epoch {epoch}",
            same_camera=evaluation.metric.same_camera,
            clothes=evaluation.metric.clothes,
        )

    def _refinement(self, options: dict[str, Any]) -> Figure | None:
        """Draws what PGLR changed, where it is on."""
        refined = self.view.refined
        if refined is None:
            return None
        clustered = self.labels.classes[self.view.indices] >= 0
        return refinement_figure(
            self.samples,
            self.labels.classes,
            self.view.indices[clustered],
            refined[clustered],
            beta=cast(PPLRModule, self.module).beta,
            **options,
        )
