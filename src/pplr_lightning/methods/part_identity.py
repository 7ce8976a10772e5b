"""Supervised part models: each window of the image tells identities by itself."""

from __future__ import annotations

import math
from typing import Any, cast

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pplr_lightning.data import TrainBatch
from pplr_lightning.data.cache import send
from pplr_lightning.functional import margin_triplet_loss
from pplr_lightning.functional.checks import (
    MOST_CLASSES,
    MOST_FEATURES,
    check_below_one,
    check_counts,
)
from pplr_lightning.methods.base import ReIDModule
from pplr_lightning.methods.parameter_groups import SCALE
from pplr_lightning.networks.window_network import WindowNetwork, reduction


class PartIdentityModule(ReIDModule):
    """PCB (Sun et al., ECCV 2018) and pyramid parts (Zheng et al., CVPR 2019), by identities.

    With f_ip the feature of window p of image i, z_ip the logits that a linear classifier of its
    own gives of it, through dropout and, of PCB, a `hidden` layer that all windows share, the loss
    is a sum over the windows,

        L = sum_p CE(z_p, y) + margin_triplet_loss(f_p, y).

    Classes must mean the same in every epoch: the labeler is `Identities`. Tested are the windows'
    features side by side, `evaluation.test_features: parts`.

    Args:
        network: Embeds the windows; when None that of PCB.
        max_clusters: Identities that are told apart, the rows of each classifier.
        hidden: Width of the shared layer, PCB's 256; None for none, as the pyramid, whose network
            reduces each window.
        dropout: Share of a window's feature that is not seen by layer and classifier, in [0, 1).
        triplet_margin: Above 0, the pyramid's is 1.4; None leaves out triplets, as PCB does.
        backbone_rate: Share of the learning rate that the backbone has, in (0, 1].

    Raises:
        ValueError: An option is out of range.

    Example:
        >>> network = WindowNetwork("resnet10t", weights=None)
        >>> PartIdentityModule(network, max_clusters=751).classifiers[0]
        Linear(in_features=256, out_features=751, bias=True)
    """

    def __init__(
        self,
        network: WindowNetwork | None = None,
        *,
        max_clusters: int = 751,
        hidden: int | None = 256,
        dropout: float = 0.5,
        triplet_margin: float | None = None,
        backbone_rate: float = 0.1,
    ) -> None:
        check_counts("model", least=2, most=MOST_CLASSES, max_clusters=max_clusters)
        check_below_one(dropout=dropout)
        if triplet_margin is not None and not 0 < triplet_margin < math.inf:
            raise ValueError(
                f"triplet_margin={triplet_margin}: must be finite and above 0, or null"
            )
        if not 0 < backbone_rate <= 1:
            raise ValueError(f"backbone_rate={backbone_rate}: must lie in (0, 1]")
        network = network or WindowNetwork()
        super().__init__(network)
        width, self.hidden = network.num_features, None
        if hidden is not None:
            check_counts("model", most=MOST_FEATURES, hidden=hidden)
            self.hidden = reduction(width, hidden, network.norm_batch_size, bias=False)
            width = hidden
        self.classifiers = nn.ModuleList(
            nn.Linear(width, max_clusters) for _ in range(network.num_parts)
        )
        for classifier in self.classifiers:
            nn.init.normal_(cast(nn.Linear, classifier).weight, std=0.001)
            nn.init.zeros_(cast(nn.Linear, classifier).bias)
        self.dropout = dropout
        self.triplet_margin = triplet_margin
        self.backbone_rate = backbone_rate
        self.save_hyperparameters(ignore=["network"])

    @property
    def max_classes(self) -> int:
        """Rows of the classifiers."""
        return int(cast(nn.Linear, self.classifiers[0]).out_features)

    def learning_parameters(self) -> list[Any]:
        """Has the backbone learn at a share of the rate."""
        backbone = list(self.network.backbone.parameters())
        of_backbone = set(backbone)
        others = [one for one in super().learning_parameters() if one not in of_backbone]
        return [
            {"params": [one for one in backbone if one.requires_grad], SCALE: self.backbone_rate},
            {"params": others},
        ]

    def training_step(self, batch: TrainBatch, batch_idx: int) -> Tensor:
        """Computes the losses of all windows, and sums them."""
        windows = self.network(batch.images).part_features  # (B, D, P)
        with torch.autocast(self.device.type, enabled=False):
            losses = {"loss_identity": self._identity_loss(windows, batch, batch_idx)}
            if self.triplet_margin is not None:
                # Triplets are found among the images of all ranks.
                everyone, targets = self.gather(windows), self.gather(batch.targets)
                losses["loss_triplet"] = torch.stack(
                    [
                        margin_triplet_loss(one, targets, margin=self.triplet_margin)
                        for one in everyone.unbind(2)
                    ]
                ).sum()
            loss = torch.stack(list(losses.values())).sum()
        self.log_losses({"loss": loss, **losses}, len(batch.images))
        return loss

    def _identity_loss(self, windows: Tensor, batch: TrainBatch, batch_idx: int) -> Tensor:
        rows = self._drop(windows, batch_idx)
        if self.hidden is not None:
            linear, norm, relu = self.hidden
            # One layer of all windows normalises them together, as rows of a map.
            shared = linear(rows.transpose(1, 2)).transpose(1, 2)  # (B, H, P)
            rows = relu(norm(shared.unsqueeze(3))).squeeze(3)
        losses = [
            F.cross_entropy(classifier(one), batch.targets)
            for classifier, one in zip(self.classifiers, rows.unbind(2), strict=True)
        ]
        return torch.stack(losses).sum()

    def _drop(self, windows: Tensor, batch_idx: int) -> Tensor:
        """Drops features of the global batch, whatever rank an image is on."""
        if not self.dropout:
            return windows
        key = (0 if self.data is None else self.data.seed, self.current_epoch, batch_idx)
        seed = int(np.random.SeedSequence(key).generate_state(1)[0])
        generator = torch.Generator().manual_seed(seed)
        count = len(windows)
        draws = torch.rand(
            self.trainer.world_size * count, *windows.shape[1:], generator=generator
        )[self.global_rank * count : (self.global_rank + 1) * count]
        return windows * send(draws >= self.dropout, windows.device) / (1 - self.dropout)
