"""Cluster Contrast: images against a memory of one row per cluster."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from pplr_lightning.data import TrainBatch
from pplr_lightning.functional import prototype_loss
from pplr_lightning.functional.checks import check_below_one, check_positive
from pplr_lightning.labelers.space import Space
from pplr_lightning.methods.base import ReIDModule
from pplr_lightning.networks import PartNetwork
from pplr_lightning.networks.memory import Memory, Rule


class ClusterContrastModule(ReIDModule):
    """Cluster Contrast (Dai et al., ACCV 2022): InfoNCE against one memory row per cluster.

    At the begin of an epoch the row c_k of cluster k is the mean of its images' features. With u_i
    the L2-normalised feature of image i, of cluster y_i, a step's loss is

        L = mean_i -log(exp(u_i · c_{y_i} / t) / sum_k exp(u_i · c_k / t)),

    and after it c_{y_i} <- unit(m c_{y_i} + (1 - m) u_i), image after image in the order of the
    global batch, the same on every rank. It has one global space; parts are not trained.

    Args:
        network: Embeds the images; when None that of the published code: no parts, `gem` pooling
            and batch statistics over 64 images (256 on four GPUs).
        temperature: t, above 0.
        momentum: m, the share of the old row, in [0, 1); the published 0.1 keeps little of it.
        update: Which images move a row: `every`, as published, or only the `hardest` of the batch
            (the paper's first versions), or their `mean`.
        floor: Of probabilities, in [0, 1), as of `prototype_loss`; that of RLCC's code is 1e-6.

    Raises:
        ValueError: An option is out of range.

    Example:
        >>> module = ClusterContrastModule(PartNetwork("resnet10t", weights=None, num_parts=0))
        >>> module.memory.momentum
        0.1
    """

    takes_soft_labels = True

    def __init__(
        self,
        network: PartNetwork | None = None,
        *,
        temperature: float = 0.05,
        momentum: float = 0.1,
        update: Rule = "every",
        floor: float = 0.0,
    ) -> None:
        check_positive(temperature=temperature)
        check_below_one(floor=floor)
        super().__init__(
            network
            or PartNetwork(image_size=(256, 128), num_parts=0, pooling="gem", norm_batch_size=64)
        )
        if self.network.num_parts:
            raise ValueError(
                f"network.num_parts={self.network.num_parts}: Cluster Contrast trains the global "
                "feature alone; use 0"
            )
        self.temperature = temperature
        self.floor = floor
        self.memory = Memory(momentum=momentum, rule=update)
        self._seen = (torch.empty(0), torch.empty(0))  # features and classes of this step
        self.save_hyperparameters(ignore=["network"])

    def begin_epoch(self, space: Space, classes: Tensor) -> dict[str, Tensor]:
        """Starts the memory from the classes' means."""
        with space.stages("centroids"):
            self.memory.reset(space.centroids(classes)[0])
        return {}

    def training_step(self, batch: TrainBatch, batch_idx: int) -> Tensor:
        """Computes the loss against the memory as it was before this step."""
        features = self.network(batch.images).features
        with torch.autocast(self.device.type, enabled=False):  # cosines need all their digits
            unit = F.normalize(features, dim=1)
            rows = self.memory.rows_for(unit)
            loss = prototype_loss(
                unit,
                rows,
                self.label_targets(batch),
                temperature=self.temperature,
                floor=self.floor,
            )
        self._seen = (unit.detach(), batch.targets)
        self.log_losses({"loss": loss}, len(batch.images))
        return loss

    def end_step(self, batch: TrainBatch) -> None:
        """Moves the memory towards the step's features, those of all ranks in global order."""
        features, targets = self._seen
        self.memory.update(self.gather(features), self.gather(targets))
