"""ICE: images against clusters, and against each other as a mean teacher sees them."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from functools import partial
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.optim.lr_scheduler import LinearLR

from pplr_lightning.data import Sample, TrainBatch
from pplr_lightning.data.cache import send
from pplr_lightning.functional import (
    camera_contrastive_loss,
    consistency_loss,
    hard_instance_loss,
)
from pplr_lightning.functional.checks import check_below_one, check_cameras, check_positive
from pplr_lightning.functional.clustering import camera_pairs
from pplr_lightning.labelers.space import Space
from pplr_lightning.methods.base import ReIDModule
from pplr_lightning.networks import PartNetwork
from pplr_lightning.networks.mean_teacher import follow


class ICEModule(ReIDModule):
    """Inter-instance Contrastive Encoding (Chen et al., ICCV 2021), with cameras or without.

    With f the student's features of an image under one augmentation, g those of the mean teacher
    under another, h those of the teacher without augmentation, and mu_k the mean of cluster k's
    unit features when the epoch began, the loss is

        L = CE(f · mu / t_c, y) + hard_instance_loss(f, g) + w consistency_loss(f, g; h, h)
            + w_c sum_c mean_{i of camera c} l_i / 2,

    the last with l_i as of `camera_contrastive_loss` with `own_camera`, over the cameras of the
    global batch, against the unit mean of each cluster in each camera when the epoch began.

    The teacher's batches are shuffled, so that its batch statistics are those of other images than
    the student's. It follows by `follow`, labels the images and is tested: it is `network`, which
    has one global space. The data module must give `views: 2` and `plain_view: true`.

    Args:
        network: Embeds the images; when None that of the published code: no parts, batch statistics
            over 8 images. Student and teacher start as it is.
        cluster_temperature: t_c, above 0.
        instance_temperature: Of the hardest positive against all negatives, above 0.
        consistency_temperature: Of the two distributions over the batch, above 0.
        consistency_weight: w, 0 or above.
        label_smoothing: Of the cross entropy CE, in [0, 1].
        momentum: Share of the old teacher, in [0, 1).
        camera_weight: w_c, 0 or above; 1 is the published form with cameras, 0 needs no camera ids.
        camera_scores: What that loss compares by: the `cosine` to a mean, as the paper, or, as
            `published` in the code, the dot product with means of which each dimension, not each
            row, has length 1.

    Attributes:
        student: Learns.
        centers: mu, (K, D).
        proxies: Of the M pairs of a cluster and a camera the mean, (M, D), the cluster, (M,), and
            the camera, (M,); empty without cameras.

    Raises:
        ValueError: An option is out of range, or the network has parts.

    Example:
        >>> module = ICEModule(PartNetwork("resnet10t", weights=None, num_parts=0))
        >>> module.momentum
        0.999
    """

    takes_soft_labels = True

    def __init__(
        self,
        network: PartNetwork | None = None,
        *,
        cluster_temperature: float = 0.5,
        instance_temperature: float = 0.1,
        consistency_temperature: float = 0.4,
        consistency_weight: float = 10.0,
        label_smoothing: float = 0.1,
        momentum: float = 0.999,
        camera_weight: float = 0.0,
        camera_scores: Literal["cosine", "published"] = "cosine",
    ) -> None:
        check_positive(
            cluster_temperature=cluster_temperature,
            instance_temperature=instance_temperature,
            consistency_temperature=consistency_temperature,
        )
        for name, value in (
            ("consistency_weight", consistency_weight),
            ("camera_weight", camera_weight),
        ):
            if not 0 <= value < math.inf:
                raise ValueError(f"{name}={value}: must be finite and not negative")
        if camera_scores not in ("cosine", "published"):
            raise ValueError(f"camera_scores={camera_scores!r}: choose cosine or published")
        if not 0 <= label_smoothing <= 1:
            raise ValueError(f"label_smoothing={label_smoothing}: must lie in [0, 1]")
        check_below_one(momentum=momentum)
        network = network or PartNetwork(image_size=(256, 128), num_parts=0, norm_batch_size=8)
        if network.num_parts:
            raise ValueError(
                f"network.num_parts={network.num_parts}: ICE trains the global feature alone; use 0"
            )
        super().__init__(network)
        self.lr_scheduler = partial(LinearLR, start_factor=0.1, total_iters=10)
        self.student = copy.deepcopy(network)
        network.requires_grad_(False)
        self.cluster_temperature = cluster_temperature
        self.instance_temperature = instance_temperature
        self.consistency_temperature = consistency_temperature
        self.consistency_weight = consistency_weight
        self.label_smoothing = label_smoothing
        self.momentum = momentum
        self.camera_weight = camera_weight
        self.camera_scores = camera_scores
        self.centers = torch.empty(0, 0)  # no buffer, which DDP would broadcast in every step
        self.proxies: tuple[Tensor, ...] = ()
        self.save_hyperparameters(ignore=["network"])

    def setup(self, stage: str) -> None:
        """Checks that there are the views that are compared.

        Raises:
            ValueError: There are not.
        """
        data = self.data
        if stage == "fit" and data is not None and (data.views, data.plain_view) != (2, True):
            raise ValueError(
                f"data.views={data.views} and data.plain_view={str(data.plain_view).lower()}: ICE "
                "compares two augmented views of an image and one without augmentation; use 2 and "
                "true"
            )
        super().setup(stage)

    def check_images(self, samples: Sequence[Sample]) -> None:
        """Checks that there are cameras where a loss wants them.

        Raises:
            ValueError: There are not.
        """
        if self.camera_weight:
            cameras = torch.tensor([sample.camera_id for sample in samples])
            check_cameras(cameras, len(samples), "ICE: cameras", "set model.camera_weight to 0")

    def begin_epoch(self, space: Space, classes: Tensor) -> dict[str, Tensor]:
        """Takes the classes' means, whole and by cameras, which stay through the epoch."""
        with space.stages("centroids"):
            self.centers = space.means(classes)
            if self.camera_weight and space.cameras is not None:
                pairs, clusters, cameras = camera_pairs(classes, space.cameras)
                means = space.centroids(pairs)[0]
                if self.camera_scores == "published":
                    means = F.normalize(means, dim=0)
                self.proxies = (means, clusters, cameras)
        return {}

    def training_step(self, batch: TrainBatch, batch_idx: int) -> Tensor:
        """Computes the loss of the student's view under the teacher's two."""
        features = self.student(batch.images).features
        (second,), plain = batch.more_views, batch.plain
        assert plain is not None  # as setup saw to
        keys, weak = (self._teach(one, batch_idx, n) for n, one in enumerate((second, plain)))
        targets = self.gather(batch.targets)
        own = slice(self.global_rank * len(features), (self.global_rank + 1) * len(features))
        with torch.autocast(self.device.type, enabled=False):  # cosines need all their digits
            self.centers = self.centers.to(features)
            losses = {
                "loss_cluster": F.cross_entropy(
                    features @ self.centers.T / self.cluster_temperature,
                    self.label_targets(batch),
                    label_smoothing=self.label_smoothing,
                ),
                "loss_instance": hard_instance_loss(
                    features, keys, batch.targets, targets, temperature=self.instance_temperature
                ),
                "loss_consistency": consistency_loss(
                    features, keys, weak[own], weak, temperature=self.consistency_temperature
                ),
            }
            loss = losses["loss_cluster"] + losses["loss_instance"]
            loss = loss + self.consistency_weight * losses["loss_consistency"]
            if self.camera_weight:
                losses["loss_camera"] = self._camera_loss(features, batch)
                loss = loss + self.camera_weight * losses["loss_camera"]
        self.log_losses({"loss": loss, **losses}, len(features))
        return loss

    def _camera_loss(self, features: Tensor, batch: TrainBatch) -> Tensor:
        """Sums half of the mean loss of each camera of the global batch, whatever rank it is on."""
        means, *ids = self.proxies
        self.proxies = (means.to(features), *(one.to(features.device) for one in ids))
        means, clusters, cameras = self.proxies
        seen = self.gather(batch.cameras)
        count = (batch.cameras[:, None] == seen).sum(dim=1).to(features)  # of the same camera
        return camera_contrastive_loss(
            features,
            batch.targets,
            batch.cameras,
            means,
            clusters,
            cameras,
            own_camera=True,
            weights=0.5 * len(seen) / count,
        )

    @torch.no_grad()
    def _teach(self, images: Tensor, batch_idx: int, view: int) -> Tensor:
        """Embeds the images of all ranks by the teacher, in groups drawn anew, (B, D)."""
        images = self.gather(images)
        # Drawn alike on every rank, and again where a run goes on.
        key = (0 if self.data is None else self.data.seed, self.current_epoch, batch_idx, view)
        generator = np.random.default_rng(key)
        order = send(torch.from_numpy(generator.permutation(len(images))), images.device)
        share = len(images) // self.trainer.world_size
        own = order[self.global_rank * share : (self.global_rank + 1) * share]
        features = self.gather(self.network(images[own]).features)
        return features[order.argsort()]

    def end_step(self, batch: TrainBatch) -> None:
        """Moves the teacher towards the student."""
        follow(self.network, self.student, momentum=self.momentum)

    def get_extra_state(self) -> dict[str, Any]:
        """Keeps the means, for a run that goes on in the middle of an epoch."""
        return {"centers": self.centers.cpu(), "proxies": [part.cpu() for part in self.proxies]}

    def set_extra_state(self, state: dict[str, Any]) -> None:
        """Takes them from a checkpoint."""
        self.centers = state["centers"]
        self.proxies = tuple(state["proxies"])
