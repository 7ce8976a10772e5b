"""PPLR as a LightningModule; its heart is `PPLRModule.training_step`."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, Literal, cast

import torch
import torch.nn.functional as F
from torch import Tensor

from pplr_lightning.data import TrainBatch
from pplr_lightning.functional import (
    aals_loss,
    camera_contrastive_loss,
    pglr_loss,
    softmax_triplet_loss,
)
from pplr_lightning.hub import SharedModule
from pplr_lightning.layouts import load_weights, read_weights
from pplr_lightning.models import PartModel, PartOutput
from pplr_lightning.pseudo_labels import CameraProxies, PseudoLabels


class PPLRModule(SharedModule):
    """Part-based Pseudo Label Refinement (Cho et al., CVPR 2022).

    Its loss is PGLR (global head) + softmax-triplet (global feature) + mean over parts of AALS +
    camera_weight * (inter-camera loss of the global feature + its mean over parts).

    Args:
        backbone: Name of a ConvNet or ViT of timm.
        image_size: Height and width of the images; the command line takes it from the data.
        pretrained: Start from timm's published (ImageNet) weights of the backbone.
        backbone_weights: Start from this file of backbone weights instead, another project's.
        warm_start: Start from this checkpoint instead: of any module of this library, of PPLR's
            authors, Cluster Contrast, SpCL or OpenUnReID.
        num_parts: Horizontal stripes P.
        last_stride: 1 opens the last stage of a ConvNet; 2 leaves the backbone as it is (a ViT).
        pooling: `avg`, or `gem` for the generalised mean with a learned exponent.
        norm_batch_size: Consecutive images that share batch statistics; None: a process's batch.
        chunk_size: Images whose activations a process holds at once, a multiple of
            `norm_batch_size`; None: all. Saves memory at the price of a second forward pass, with
            the same result.
        channels_last: Lay images and weights out as a GPU's convolutions in half precision want
            them; the same result but for rounding.
        compile: Train with a compiled backbone (`torch.compile`); the same but for rounding.
        max_clusters: Classifier rows, the most clusters that are trained on.
        aals: Agreement-aware label smoothing for the parts (Eq. 5); false smooths every label by
            `label_smoothing` in all epochs.
        pglr: Part-guided label refinement for the global head (Eq. 6-7); false trains it on the
            cluster labels alone.
        beta: Share of the cluster label in the refined label, in [0, 1].
        aals_start_epoch: Epochs of plain label smoothing before AALS.
        label_smoothing: Smoothing of the part labels where AALS is off, in [0, 1].
        camera_weight: Weight of the inter-camera contrastive loss, the paper's setting "with
            cameras", >= 0; 0 needs no camera ids.
        lr: Learning rate of Adam.
        weight_decay: Weight decay of Adam.
        lr_step: Epochs after which the learning rate is multiplied by `lr_gamma`.
        lr_gamma: That factor.

    Raises:
        ValueError: An option is out of range, or timm does not know the backbone.
    """

    def __init__(
        self,
        backbone: str = "resnet50.tv_in1k",
        *,
        image_size: tuple[int, int] = (384, 128),
        pretrained: bool = True,
        backbone_weights: str | None = None,
        warm_start: str | None = None,
        num_parts: int = 3,
        last_stride: int = 1,
        pooling: Literal["avg", "gem"] = "avg",
        norm_batch_size: int | None = 16,
        chunk_size: int | None = None,
        channels_last: bool = False,
        compile: bool = False,
        max_clusters: int = 3000,
        aals: bool = True,
        pglr: bool = True,
        beta: float = 0.5,
        aals_start_epoch: int = 5,
        label_smoothing: float = 0.1,
        camera_weight: float = 0.0,
        lr: float = 3.5e-4,
        weight_decay: float = 5e-4,
        lr_step: int = 20,
        lr_gamma: float = 0.1,
    ) -> None:
        for name, value in (("beta", beta), ("label_smoothing", label_smoothing)):
            if not 0 <= value <= 1:
                raise ValueError(f"{name}={value}: must lie in [0, 1]")
        if not 0 <= camera_weight < math.inf:
            raise ValueError(
                f"camera_weight={camera_weight}: must be finite and not negative; 0 turns it off"
            )
        if aals_start_epoch < 0:
            raise ValueError(f"aals_start_epoch={aals_start_epoch}: must not be negative")
        model = PartModel(
            backbone,
            image_size=image_size,
            num_parts=num_parts,
            last_stride=last_stride,
            pooling=pooling,
            norm_batch_size=norm_batch_size,
            chunk_size=chunk_size,
            channels_last=channels_last,
            compile=compile,
            max_clusters=max_clusters,
        )
        super().__init__(
            model,
            pretrained=pretrained,
            backbone_weights=backbone_weights,
            warm_start=warm_start,
            lr=lr,
            weight_decay=weight_decay,
            lr_step=lr_step,
            lr_gamma=lr_gamma,
        )
        self.aals = aals
        self.beta = beta if pglr else 1.0
        self.aals_start_epoch = aals_start_epoch
        self.label_smoothing = label_smoothing
        self.camera_weight = camera_weight
        self._proxies: tuple[PseudoLabels, CameraProxies] | None = None
        self.save_hyperparameters()

    @classmethod
    def load_official(cls, path: str | Path, **options: Any) -> PPLRModule:
        """Builds the module that a published checkpoint fits, with its weights.

        Args:
            path: `best.pth` of PPLR's authors, or a checkpoint of Cluster Contrast, SpCL or
                OpenUnReID (docs/checkpoints.md); these have a global branch alone, whose neck the
                parts start with. For this library's there is `load_from_checkpoint`.
            **options: Of the module; `num_parts`, `pooling` and `max_clusters` are the
                checkpoint's, where it has them.

        Raises:
            FileNotFoundError: There is no such file.
            ValueError: The checkpoint cannot be read, is of none of these projects, or of another
                model than the options say.
        """
        weights = read_weights(path)
        if weights.project is None:
            raise ValueError(
                f"{path} is a checkpoint of this library: load it with {cls.__name__}."
                "load_from_checkpoint"
            )
        given: dict[str, Any] = {"pooling": weights.pooling}
        if weights.num_parts:
            given["num_parts"] = weights.num_parts
        if weights.max_clusters:
            given["max_clusters"] = weights.max_clusters
        module = cls(**{**given, **options})
        load_weights(module.model, weights, classifiers=True)
        module._has_weights = True
        return module

    def training_step(self, batch: TrainBatch, batch_idx: int) -> Tensor:
        """Computes the loss of one P x K batch."""
        output = self.model(batch.images)
        with torch.autocast(self.device.type, enabled=False):  # cosines need all their digits
            losses = self._losses(output, batch)
        self.log_losses(losses, len(batch.images))
        return losses["loss"]

    def _losses(self, output: PartOutput, batch: TrainBatch) -> dict[str, Tensor]:
        pglr = pglr_loss(
            output.logits, output.part_logits, batch.targets, batch.agreement, beta=self.beta
        )
        parts = self._part_loss(output.part_logits, batch)
        triplet = self._triplet_loss(output.features, batch.targets)
        loss = pglr + triplet + parts
        losses = {"loss": loss, "loss_pglr": pglr, "loss_parts": parts, "loss_triplet": triplet}
        if self.uses_cameras:
            losses["loss_camera"] = self._camera_loss(output, batch)
            losses["loss"] = loss + self.camera_weight * losses["loss_camera"]
        return losses

    @property
    def uses_cameras(self) -> bool:
        """Tells whether a loss needs camera proxies; `PseudoLabeling` then makes them."""
        return self.camera_weight > 0

    def _part_loss(self, part_logits: Tensor, batch: TrainBatch) -> Tensor:
        """Averages the part heads' losses over the parts, (B, C, P)."""
        # Every part of an image is a row of its own: the mean over rows is that over the parts.
        rows = part_logits.transpose(1, 2).flatten(0, 1)  # (B * P, C)
        targets = batch.targets[:, None].expand(-1, part_logits.shape[2]).flatten()
        if not self.aals or self.current_epoch < self.aals_start_epoch:
            return F.cross_entropy(rows, targets, label_smoothing=self.label_smoothing)
        return aals_loss(rows, targets, batch.agreement.flatten())

    def _triplet_loss(self, features: Tensor, targets: Tensor) -> Tensor:
        """Compares the images of all ranks, not only of this one."""
        return softmax_triplet_loss(self.gather(features), self.gather(targets))

    def _camera_loss(self, output: PartOutput, batch: TrainBatch) -> Tensor:
        """Compares each space's features with their cluster's proxies of other cameras."""
        proxies = self._camera_proxies()
        whole, *parts = (
            camera_contrastive_loss(
                features, batch.targets, batch.cameras, means, proxies.labels, proxies.cameras
            )
            for features, means in (
                (output.features, proxies.features),
                *zip(output.part_features.unbind(2), proxies.part_features.unbind(2), strict=True),
            )
        )
        return whole + sum(parts[1:], parts[0]) / len(parts)

    def _camera_proxies(self) -> CameraProxies:
        """Brings the epoch's proxies to the device, once."""
        labels = cast(Any, self.trainer).datamodule.pseudo_labels
        if self._proxies is None or self._proxies[0] is not labels:
            moved = CameraProxies(*(part.to(self.device) for part in labels.proxies))
            self._proxies = (labels, moved)
        return self._proxies[1]
