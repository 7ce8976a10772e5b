"""SimCLR: a warm start without labels, for domains that have no good pretrained weights."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor, nn

from pplr_lightning.data import TrainBatch
from pplr_lightning.functional.checks import MOST_FEATURES, check_counts, check_positive
from pplr_lightning.methods.base import ReIDModule
from pplr_lightning.networks import PartNetwork


class SimCLRModule(ReIDModule):
    """SimCLR (Chen et al., ICML 2020) on the part network: every image is a class of its own.

    NT-Xent over two augmented views of each image, on the global and on each part feature. It goes
    with the labeler `Instances`, and the data module must draw `instances: 2` with `augmentation:
    contrastive`.

    Args:
        network: Embeds the images; `PartNetwork()` when None.
        projection_size: Width of the projection on which views are compared.
        temperature: Of NT-Xent.

    Raises:
        ValueError: An option is out of range.
    """

    def __init__(
        self,
        network: PartNetwork | None = None,
        *,
        projection_size: int = 128,
        temperature: float = 0.1,
    ) -> None:
        check_counts("model", most=MOST_FEATURES, projection_size=projection_size)
        check_positive(temperature=temperature)
        network = network or PartNetwork()
        super().__init__(network)
        self.optimizer = partial(torch.optim.Adam, lr=1e-3, weight_decay=1e-4)
        width = network.num_features
        self.projector = nn.Sequential(
            nn.Linear(width, width), nn.ReLU(inplace=True), nn.Linear(width, projection_size)
        )
        self.loss = _nt_xent(temperature)
        self.save_hyperparameters(ignore=["network"])

    def setup(self, stage: str) -> None:
        """Checks that there are two views of each image.

        Raises:
            ValueError: There are not.
        """
        super().setup(stage)
        if stage == "fit" and self.data is not None and self.data.instances != 2:
            raise ValueError(
                f"data.instances={self.data.instances}: SimCLR compares 2 views of an image"
            )

    def training_step(self, batch: TrainBatch, batch_idx: int) -> Tensor:
        """Computes NT-Xent over the views of all ranks, mean over the branches."""
        features, part_features = self.network(batch.images)
        branches = torch.cat([features.unsqueeze(2), part_features], dim=2)
        targets = self.gather(batch.targets)
        with torch.autocast(self.device.type, enabled=False):  # cosines need all their digits
            # (B, 1 + P, projection_size), B of all ranks
            projected = self.gather(self.projector(branches.transpose(1, 2)))
            losses = torch.stack([self.loss(branch, targets) for branch in projected.unbind(1)])
        loss = losses.mean()
        self.log_losses({"loss": loss}, len(targets))
        return loss


def _nt_xent(temperature: float) -> nn.Module:
    try:
        from pytorch_metric_learning.losses import NTXentLoss
    except ImportError as error:
        raise ImportError(
            "SimCLR's loss comes from pytorch-metric-learning: pip install pplr-lightning[simclr]"
        ) from error
    return NTXentLoss(temperature=temperature)
