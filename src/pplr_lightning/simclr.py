"""A warm start without labels, for domains that have no good pretrained weights."""

from __future__ import annotations

import math
from typing import Literal

import torch
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch import Tensor, nn

from pplr_lightning.data import PPLRDataModule, TrainBatch
from pplr_lightning.models import PartModel
from pplr_lightning.pseudo_labels import PseudoLabels
from pplr_lightning.retrieval_module import RetrievalModule


class SimCLRModule(RetrievalModule):
    """SimCLR (Chen et al., ICML 2020) on the part model: every image is a class of its own.

    NT-Xent over two augmented views of each image, on the global and on each part feature. The
    data module must draw `instances: 2` with `augmentation: contrastive`.

    Args:
        backbone: Name of a ConvNet or ViT of timm.
        image_size: Height and width of the images; the command line takes it from the data.
        pretrained: Start from timm's published weights of the backbone.
        backbone_weights: Start from this file of backbone weights instead, another project's.
        warm_start: Start from this checkpoint, as of `PPLRModule`.
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
        projection_size: Width of the projection on which views are compared.
        temperature: Of NT-Xent.
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
        pretrained: bool = False,
        backbone_weights: str | None = None,
        warm_start: str | None = None,
        num_parts: int = 3,
        last_stride: int = 1,
        pooling: Literal["avg", "gem"] = "avg",
        norm_batch_size: int | None = 16,
        chunk_size: int | None = None,
        channels_last: bool = False,
        compile: bool = False,
        projection_size: int = 128,
        temperature: float = 0.1,
        lr: float = 1e-3,
        weight_decay: float = 1e-4,
        lr_step: int = 20,
        lr_gamma: float = 0.1,
    ) -> None:
        if projection_size < 1:
            raise ValueError(f"projection_size={projection_size}: must be at least 1")
        if not 0 < temperature < math.inf:
            raise ValueError(f"temperature={temperature}: must be finite and above 0")
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
            max_clusters=1,
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
        for head in (model.head, *model.part_heads):
            head.classifier.requires_grad_(False)  # there are no clusters to classify
        width = model.num_features
        self.projector = nn.Sequential(
            nn.Linear(width, width), nn.ReLU(inplace=True), nn.Linear(width, projection_size)
        )
        self.loss = _nt_xent(temperature)
        self.save_hyperparameters()

    def on_train_epoch_start(self) -> None:
        """Hands the data module the labels of instance discrimination: each image its own."""
        data = self.trainer.datamodule  # type: ignore[attr-defined]
        if not isinstance(data, PPLRDataModule):
            raise MisconfigurationException("SimCLRModule needs a PPLRDataModule")
        if data.instances != 2:
            raise ValueError(
                f"data.instances={data.instances}: SimCLR compares 2 views of an image"
            )
        images = len(data.train_samples)
        data.pseudo_labels = PseudoLabels(
            labels=torch.arange(images),
            agreement=torch.ones(images, self.model.num_parts),
            centroids=torch.empty(images, 0),
            part_centroids=torch.empty(images, 0, self.model.num_parts),
        )

    def training_step(self, batch: TrainBatch, batch_idx: int) -> Tensor:
        """Computes NT-Xent over the views of all ranks, mean over the branches."""
        output = self.model(batch.images)
        branches = torch.cat([output.features.unsqueeze(2), output.part_features], dim=2)
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
