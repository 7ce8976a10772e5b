"""IICS: classes within each camera and across all, in turn."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, cast

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pplr_lightning.data import EvalBatch, Sample, TrainBatch
from pplr_lightning.evaluation.extraction import evaluating
from pplr_lightning.functional import margin_triplet_loss
from pplr_lightning.functional.checks import (
    MOST_CLASSES,
    check_cameras,
    check_counts,
    check_positive,
)
from pplr_lightning.labelers.space import Space
from pplr_lightning.lightning_internals import trainer_of
from pplr_lightning.methods.base import ReIDModule
from pplr_lightning.methods.parameter_groups import SCALE, TIMES
from pplr_lightning.networks import AdaptiveNetwork, ClusterClassifier, GroupBatchNorm, PartNetwork


class IICSModule(ReIDModule):
    """Intra-Inter Camera Similarity (Xuan & Zhang, CVPR 2021), the variant with thresholds.

    Epochs 0, 2, ... are within cameras: classes are of one camera each, batches of `per_camera`
    images of every camera, which pass the network camera by camera, and each camera c has a head, a
    neck and a classifier. With f_i an image's feature, which has no neck,

        L = sum_c mean_{i of c} CE(head_c(f_i), y_i).

    Before epochs 1, 3, ... every head says of every image which class of its camera it looks like;
    of these scores and the features classes are made across cameras, and

        L = mean_i CE(head(f_i), y_i) + margin_triplet_loss(f, y)

    with one head, at twice the rates. Heads and the optimiser begin each epoch anew. The labeler is
    `CameraLinkage`. Batch statistics are over the images of a camera in the one kind of epoch and
    over `network.norm_batch_size` in the other.

    Args:
        network: Embeds the images; when None an `AdaptiveNetwork`.
        num_cameras: Cameras of the data at most, each of which has a neck.
        max_clusters: Classifier rows, the most classes of an epoch, those of all cameras together.
        images_per_camera: Of a batch within cameras, a multiple of `data.instances`.
        triplet_margin: Above 0.
        backbone_rate: Share of the learning rate that the network has, in (0, 1].

    Raises:
        ValueError: An option is out of range, or the network has parts.

    Example:
        >>> network = AdaptiveNetwork("resnet10t", weights=None)
        >>> IICSModule(network, num_cameras=2, max_clusters=64).per_camera
        8
    """

    keeps_images = True  # a row of scores

    def __init__(
        self,
        network: PartNetwork | None = None,
        *,
        num_cameras: int = 6,
        max_clusters: int = 8000,
        images_per_camera: int = 8,
        triplet_margin: float = 0.3,
        backbone_rate: float = 0.1,
    ) -> None:
        check_counts("model", least=2, most=MOST_CLASSES, max_clusters=max_clusters)
        check_counts("model", least=2, most=max_clusters, num_cameras=num_cameras)  # one class each
        check_counts("model", least=2, images_per_camera=images_per_camera)
        check_positive(triplet_margin=triplet_margin)
        if not 0 < backbone_rate <= 1:
            raise ValueError(f"backbone_rate={backbone_rate}: must lie in (0, 1]")
        super().__init__(network or AdaptiveNetwork())
        if self.network.num_parts:
            raise ValueError(
                f"network.num_parts={self.network.num_parts}: IICS trains the global feature "
                "alone; use 0"
            )
        self.lr_scheduler = None
        width = self.network.num_features
        # The last is of the head across cameras. Each sees its rows of the whole global batch on
        # every rank, and so needs no groups.
        self.necks = nn.ModuleList(nn.BatchNorm1d(width) for _ in range(num_cameras + 1))
        for neck in cast(Any, self.necks):
            neck.bias.requires_grad_(False)
        self.classifier = ClusterClassifier(width, max_clusters)
        self.images_per_camera = images_per_camera
        self.triplet_margin = triplet_margin
        self.backbone_rate = backbone_rate
        self.bounds: list[int] = []  # first row of each camera, and the one after the last
        self._scores: Tensor | None = None
        self._ranks: Any = None  # that hold a group of an epoch across cameras together
        self.save_hyperparameters(ignore=["network"])

    @property
    def max_classes(self) -> int:
        """Rows of the classifier."""
        return len(self.classifier.weight)

    @property
    def per_camera(self) -> int | None:
        """Images of each camera in a batch, in epochs within cameras."""
        return None if self.is_across else self.images_per_camera

    @property
    def is_across(self) -> bool:
        """Whether this epoch's classes are across cameras."""
        return self.current_epoch % 2 == 1

    def setup(self, stage: str) -> None:
        """Remembers which ranks have the statistics of a batch across cameras in common.

        Raises:
            ValueError: A camera's images in a batch are no whole groups of `data.instances`.
        """
        data = self.data
        if stage == "fit" and data is not None and self.images_per_camera % data.instances:
            raise ValueError(
                f"model.images_per_camera={self.images_per_camera}: must be a multiple of "
                f"data.instances={data.instances}"
            )
        super().setup(stage)
        norms = (m for m in self.network.modules() if isinstance(m, GroupBatchNorm))
        self._ranks = next((norm.ranks for norm in norms), None)

    def teardown(self, stage: str) -> None:
        """Gives the network back its own groups, and lets go of the ranks."""
        super().teardown(stage)
        self._ranks = None
        self._group_by(self.network.norm_batch_size, None)

    def check_images(self, samples: Sequence[Sample]) -> None:
        """Checks that the cameras are known, have heads, and divide over the processes.

        Raises:
            ValueError: They do not.
        """
        ids = torch.tensor([sample.camera_id for sample in samples])
        check_cameras(ids, len(ids), "IICS: cameras", "use another method")
        cameras, processes = len(ids.unique()), self.trainer.world_size
        if cameras >= len(self.necks):
            raise ValueError(
                f"model.num_cameras={len(self.necks) - 1}: the images are of {cameras} cameras"
            )
        if cameras % processes:
            raise ValueError(
                f"IICS divides the {cameras} cameras over the processes, here {processes}: use a "
                "number that divides them"
            )

    def learning_parameters(self) -> list[Any]:
        """Has the network learn at a share of the rate."""
        network = [one for one in self.network.parameters() if one.requires_grad]
        of_network = set(network)
        others = [one for one in super().learning_parameters() if one not in of_network]
        return [{"params": network, SCALE: self.backbone_rate}, {"params": others}]

    @torch.no_grad()
    def embed_batches(self, batches: Iterable[EvalBatch]) -> tuple[Tensor, Tensor]:
        """Embeds the images; before an epoch across cameras, has the heads score them, too."""
        rows, scores = [torch.empty(0, self.network.num_features)], []
        weight = self.classifier.weight
        with evaluating(self):
            for batch in batches:
                images = batch.images.to(weight.device, weight.dtype, non_blocking=True)
                features = self.network(images).features.to(weight.dtype)
                rows.append(F.normalize(features.float(), dim=1).cpu())
                if self.is_across:
                    scores.append(self.score(features).float().cpu())
        width = self.bounds[-1] if self.bounds else 0
        self._scores = torch.cat([torch.empty(0, width), *scores]) if self.is_across else None
        features = torch.cat(rows)
        return features, features.new_empty(*features.shape, 0)

    def image_scores(self) -> Tensor | None:
        """Gives what the heads said of the images embedded last."""
        return self._scores

    def score(self, features: Tensor) -> Tensor:
        """Asks each camera's head for probabilities of its classes, side by side, (B, S)."""
        cameras = range(len(self.bounds) - 1)
        return torch.cat([self._logits(one, features).softmax(dim=1) for one in cameras], dim=1)

    def _logits(self, camera: int, features: Tensor) -> Tensor:
        own = slice(self.bounds[camera], self.bounds[camera + 1])
        return F.linear(self.necks[camera](features), self.classifier.weight[own])

    @torch.no_grad()
    def begin_epoch(self, space: Space, classes: Tensor) -> dict[str, Tensor]:
        """Makes the heads and the optimiser anew.

        Raises:
            ValueError: Within cameras, a class is of two.
        """
        self._scores = None
        key = (0 if self.data is None else self.data.seed, self.current_epoch)
        seed = int(np.random.SeedSequence(key).generate_state(1)[0])
        weight = torch.randn(
            self.classifier.weight.shape, generator=torch.Generator().manual_seed(seed)
        )
        self.classifier.weight.copy_(0.001 * weight)
        self.classifier.num_clusters = int(classes.max()) + 1
        for neck in cast(Any, self.necks):
            neck.reset_parameters()
        if not self.is_across:
            assert space.cameras is not None  # as check_images saw to
            self.bounds = _bounds(classes, space.cameras)
        trainer = trainer_of(self)
        for optimizer in [] if trainer is None else trainer.optimizers:
            optimizer.state.clear()
            times = 2 if self.is_across else 1
            for group in optimizer.param_groups:  # which checkpoints keep
                group["lr"] *= times / group.get(TIMES, 1)
                group[TIMES] = times
        return {}

    def training_step(self, batch: TrainBatch, batch_idx: int) -> Tensor:
        """Computes the loss of the global batch, on every rank."""
        # Batch statistics are over a camera's images, or over the network's groups.
        own = (self.network.norm_batch_size, self._ranks)
        self._group_by(*own if self.is_across else (self.images_per_camera, None))
        features = self.network(batch.images).features
        with torch.autocast(self.device.type, enabled=False):
            features, targets = self.gather(features), self.gather(batch.targets)
            if self.is_across:
                logits = self.classifier(self.necks[-1](features))
                margin = self.triplet_margin
                losses = {
                    "loss_identity": F.cross_entropy(logits, targets),
                    "loss_triplet": margin_triplet_loss(features, targets, margin=margin),
                }
            else:
                losses = {"loss_identity": self._within(features, targets)}
            # DDP wants a gradient of every parameter, of heads that stand by, too.
            idle = [0 * neck.weight.sum() for neck in cast(Any, self.necks)]
            loss = torch.stack([*losses.values(), *idle]).sum()
        self.log_losses({"loss": loss, **losses}, len(batch.images))
        return loss

    def _within(self, features: Tensor, targets: Tensor) -> Tensor:
        """Sums the losses of the cameras, whose images stand one camera after the other."""
        parts = (one.split(self.images_per_camera) for one in (features, targets))
        losses = [
            F.cross_entropy(self._logits(camera, rows), wanted - self.bounds[camera])
            for camera, (rows, wanted) in enumerate(zip(*parts, strict=True))
        ]
        return torch.stack(losses).sum()

    def _group_by(self, size: int | None, ranks: Any) -> None:
        """Has the norms take their statistics over so many images, of some ranks together."""
        for norm in self.network.modules():
            if isinstance(norm, GroupBatchNorm):
                norm.group_size, norm.ranks = size, ranks

    def get_extra_state(self) -> dict[str, Any]:
        """Keeps which rows are of which camera."""
        return {"bounds": self.bounds}

    def set_extra_state(self, state: dict[str, Any]) -> None:
        """Takes it."""
        self.bounds = list(state["bounds"])


def _bounds(classes: Tensor, cameras: Tensor) -> list[int]:
    """Finds the first class of each camera, and the number of all."""
    bounds = [0]
    for camera in cameras.unique():
        own = classes[(cameras == camera) & (classes >= 0)].unique().tolist()
        if not own or own != list(range(bounds[-1], bounds[-1] + len(own))):
            raise ValueError(
                f"camera {int(camera)} has no classes of its own, one camera's after the other: "
                "IICS needs pseudo_labels.labeler CameraLinkage"
            )
        bounds.append(bounds[-1] + len(own))
    return bounds
