"""SpCL: images against a memory of clusters and of single images, each the mean of its images."""

from __future__ import annotations

from collections.abc import Iterable
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor

from pplr_lightning.data import EvalBatch, PPLRDataModule, TrainBatch
from pplr_lightning.functional import prototype_loss
from pplr_lightning.functional.checks import check_positive
from pplr_lightning.labelers.space import Space
from pplr_lightning.methods.base import ReIDModule
from pplr_lightning.networks import PartNetwork
from pplr_lightning.networks.memory import Memory

FLOOR = 1e-6  # of the authors' code: it bounds the loss of an image and damps its gradient


class SpCLModule(ReIDModule):
    """SpCL (Ge et al., NeurIPS 2020), without a labelled source: a memory of all images.

    The memory has a row v_j for each image j: before the first epoch the feature of the network
    that training starts from, never extracted again. Every later epoch's labels are made of the
    memory. With u_i the L2-normalised feature of image i, of class y_i, a class being a cluster or
    a single image, g_k the mean, not normalised, of the rows of class k, and f = 1e-6, the loss is

        L = mean_i -log(p_i + f),    p_i = exp(u_i · g_{y_i} / t) / (sum_k exp(u_i · g_k / t) + f),

    and after a step v_i <- unit(m v_i + (1 - m) u_i), image after image in the order of the global
    batch, the same on every rank. It has one global space; parts are not trained. The labeler is
    `SelfPaced`, and images are drawn with `data.repeat_images=false`, so that a single one counts
    once.

    Args:
        network: Embeds the images; when None that of the published code: no parts, `avg` pooling
            and batch statistics over 16 images (64 on four GPUs).
        temperature: t, above 0.
        momentum: m, the share of the old row, in [0, 1).

    Raises:
        ValueError: An option is out of range.

    Example:
        >>> module = SpCLModule(PartNetwork("resnet10t", weights=None, num_parts=0))
        >>> module.memory.momentum
        0.2
    """

    takes_soft_labels = True
    keeps_images = True

    def __init__(
        self,
        network: PartNetwork | None = None,
        *,
        temperature: float = 0.05,
        momentum: float = 0.2,
    ) -> None:
        check_positive(temperature=temperature)
        super().__init__(
            network
            or PartNetwork(image_size=(256, 128), num_parts=0, pooling="avg", norm_batch_size=16)
        )
        if self.network.num_parts:
            raise ValueError(
                f"network.num_parts={self.network.num_parts}: SpCL trains the global feature "
                "alone; use 0"
            )
        self.temperature = temperature
        self.memory = Memory(momentum=momentum)
        self._seen = torch.empty(0)  # features of this step
        self.save_hyperparameters(ignore=["network"])

    def setup(self, stage: str) -> None:
        """Forgets the images of another run, unless a checkpoint is about to be restored.

        Raises:
            ValueError: Single images would be repeated.
        """
        super().setup(stage)
        if stage == "fit" and self.data is not None and self.data.repeat_images:
            raise ValueError(
                "data.repeat_images=true: SpCL trains on single images, which are to count once; "
                "set it to false"
            )
        if stage == "fit" and self.trainer.ckpt_path is None:
            self.memory.reset(torch.empty(0, 0))

    def embed_batches(self, batches: Iterable[EvalBatch]) -> tuple[Tensor, Tensor]:
        """Returns this rank's rows of the memory; only before the first epoch it embeds."""
        if not len(self.memory.rows):
            return super().embed_batches(batches)
        own = list(cast(PPLRDataModule, self.data).labeling_dataloader().sampler)
        # As extracted features are: float32, on the CPU.
        features = self.memory.rows.float().cpu()[own]
        return features, features.new_empty(*features.shape, 0)

    def begin_epoch(self, space: Space, classes: Tensor) -> dict[str, Tensor]:
        """Fills the memory before the first epoch; gives its rows the epoch's classes."""
        if not len(self.memory.rows):
            self.memory.reset(space.share.gather(space.features))
        self.memory.classify(classes)
        return {}

    def training_step(self, batch: TrainBatch, batch_idx: int) -> Tensor:
        """Computes the loss against the memory as it was before this step."""
        features = self.network(batch.images).features
        with torch.autocast(self.device.type, enabled=False):  # cosines need all their digits
            unit = F.normalize(features, dim=1)
            means = self.memory.prototypes_for(unit)
            loss = prototype_loss(
                unit, means, self.label_targets(batch), temperature=self.temperature, floor=FLOOR
            )
        self._seen = unit.detach()
        self.log_losses({"loss": loss}, len(batch.images))
        return loss

    def end_step(self, batch: TrainBatch) -> None:
        """Moves the rows of the step's images, those of all ranks in global order."""
        self.memory.update(self.gather(self._seen), self.gather(batch.indices))
