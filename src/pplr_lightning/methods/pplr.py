"""PPLR as a LightningModule; its heart is `PPLRModule.training_step`."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple, cast

import torch
import torch.nn.functional as F
from lightning.pytorch.utilities import rank_zero_info
from torch import Tensor, nn

from pplr_lightning.data import Sample, TrainBatch
from pplr_lightning.functional import (
    aals_loss,
    camera_contrastive_loss,
    pglr_loss,
    relative_agreement,
    softmax_triplet_loss,
    update_prototypes,
)
from pplr_lightning.functional.agreement import overlap
from pplr_lightning.functional.checks import MOST_CLASSES, check_counts
from pplr_lightning.functional.clustering import camera_pairs
from pplr_lightning.functional.losses import refined_labels
from pplr_lightning.labelers.labeler import warn_of_large
from pplr_lightning.labelers.space import Space
from pplr_lightning.methods.base import ReIDModule
from pplr_lightning.networks import ClusterClassifier, PartNetwork, PartOutput
from pplr_lightning.weights.layouts import load_weights, read_weights


class PPLRModule(ReIDModule):
    """Part-based Pseudo Label Refinement (Cho et al., CVPR 2022).

    Its loss is PGLR (global head) + softmax-triplet (global feature) + mean over parts of AALS +
    camera_weight * (inter-camera loss of the global feature + its mean over parts). With `aals` and
    `pglr` off, or without parts, it is the strong baseline of identity loss and triplet.

    Batches carry the column `agreement`, (B, P), and `proxy`, (B,), where proxies move.

    Args:
        network: Embeds the images; the paper's `PartNetwork()` when None.
        max_clusters: Classifier rows, the most clusters that are trained on.
        aals: Agreement-aware label smoothing for the parts (Eq. 5); false smooths every label by
            `label_smoothing` in all epochs.
        pglr: Part-guided label refinement for the global head (Eq. 6-7); false trains it on the
            cluster labels alone.
        beta: Share of the cluster label in the refined label, in [0, 1].
        agreement_k: Nearest neighbours for the cross agreement, the image itself left out.
        aals_start_epoch: Epochs of plain label smoothing before AALS.
        aals_agreement: What AALS smooths by: the agreement itself, as published (`absolute`), or
            compared with what is usual in the epoch (`relative`, `functional.relative_agreement`).
        label_smoothing: Smoothing of the part labels where AALS is off, in [0, 1].
        camera_weight: Weight of the inter-camera contrastive loss, the paper's setting "with
            cameras", >= 0; 0 needs no camera ids.
        proxy_momentum: Share of the old camera proxy when an image of a step moves its own, in
            [0, 1]. 1, as published, leaves them as they are when the epoch begins; 0.2 is that of
            Wang et al., "Offline-Online Associated Camera-Aware Proxies", TIP 2022.

    Raises:
        ValueError: An option is out of range.

    Example:
        >>> network = PartNetwork("resnet10t", weights=None, num_parts=2)
        >>> module = PPLRModule(network, max_clusters=600)
        >>> module.embed(torch.zeros(1, 3, 64, 32, dtype=torch.uint8), image_size=(64, 32)).shape
        torch.Size([1, 512])
    """

    takes_soft_labels = True

    def __init__(
        self,
        network: PartNetwork | None = None,
        *,
        max_clusters: int = 3000,
        aals: bool = True,
        pglr: bool = True,
        beta: float = 0.5,
        agreement_k: int = 20,
        aals_start_epoch: int = 5,
        aals_agreement: Literal["absolute", "relative"] = "absolute",
        label_smoothing: float = 0.1,
        camera_weight: float = 0.0,
        proxy_momentum: float = 1.0,
    ) -> None:
        for name, value in (
            ("beta", beta),
            ("label_smoothing", label_smoothing),
            ("proxy_momentum", proxy_momentum),
        ):
            if not 0 <= value <= 1:
                raise ValueError(f"{name}={value}: must lie in [0, 1]")
        if not 0 <= camera_weight < math.inf:
            raise ValueError(
                f"camera_weight={camera_weight}: must be finite and not negative; 0 turns it off"
            )
        check_counts("model", agreement_k=agreement_k)
        check_counts("model", least=2, most=MOST_CLASSES, max_clusters=max_clusters)
        check_counts("model", least=0, aals_start_epoch=aals_start_epoch)
        network = network or PartNetwork()
        super().__init__(network)
        self.classifier = ClusterClassifier(network.num_features, max_clusters)
        self.part_classifiers = nn.ModuleList(
            ClusterClassifier(network.num_features, max_clusters) for _ in range(network.num_parts)
        )
        self.aals = aals
        # Without parts there is nothing to refine labels by.
        self.beta = beta if pglr and network.num_parts else 1.0
        self.agreement_k = agreement_k
        self.aals_start_epoch = aals_start_epoch
        self.aals_agreement = aals_agreement
        self.label_smoothing = label_smoothing
        self.camera_weight = camera_weight
        self.proxy_momentum = proxy_momentum
        self.proxies: CameraProxies | None = None
        self._seen = torch.empty(0)  # unit features of this step, in all spaces, (B, D, 1 + P)
        self.save_hyperparameters(ignore=["network"])

    @property
    def max_classes(self) -> int:
        """Rows of the classifiers."""
        return len(self.classifier.weight)

    @property
    def num_neighbors(self) -> int:
        """Those of the cross agreement, and the image itself."""
        return self.agreement_k + 1 if self.network.num_parts else 1

    def check_images(self, samples: Sequence[Sample]) -> None:
        """Checks that there are enough images, and cameras where a loss wants them.

        It warns of an `agreement_k` that is large for them.

        Raises:
            ValueError: There are not.
        """
        if self.network.num_parts:
            check_counts("model", len(samples) - 1, agreement_k=self.agreement_k)
            warn_of_large("model", len(samples), agreement_k=self.agreement_k)
        if self.camera_weight and len({sample.camera_id for sample in samples}) < 2:
            raise ValueError(
                "model.camera_weight is above 0, but all training images are of one camera, or of "
                "none that is known: give the data set camera ids, or set camera_weight to 0"
            )

    def begin_epoch(self, space: Space, classes: Tensor) -> dict[str, Tensor]:
        """Scores the agreement of all images, and sets the classifiers to the classes' means."""
        columns = {"agreement": self._agree(space)}
        with space.stages("centroids"):
            centroids, part_centroids = space.centroids(classes)
            if self.camera_weight and space.cameras is not None:
                pairs, clusters, cameras = camera_pairs(classes, space.cameras)
                self.proxies = CameraProxies(*space.centroids(pairs), clusters, cameras)
                if self.proxy_momentum < 1:
                    columns["proxy"] = pairs
        self.reset_classifiers(centroids, part_centroids)
        if self.aals_agreement == "relative" and self.network.num_parts:
            columns["relative_agreement"] = relative_agreement(columns["agreement"], classes)
        return columns

    def _agree(self, space: Space) -> Tensor:
        """Scores the agreement of all images, (N, P); each rank its own."""
        if not self.network.num_parts:
            return torch.empty(space.total, 0)
        k, scores = self.agreement_k, []
        neighbors, parts = space.neighbors(self.num_neighbors), space.part_features.unbind(2)
        with space.stages("agreement", len(parts)) as advance:
            for part in parts:
                nearest = space.search(part, k + 1)
                scores.append(overlap(neighbors, nearest, k=k, start=space.share.start))
                advance()
            return space.share.gather(torch.stack(scores, dim=1))

    def reset_classifiers(self, centroids: Tensor, part_centroids: Tensor) -> None:
        """Overwrites classifier rows with centroids (K, D) and (K, D, P)."""
        self.classifier.reset(centroids)
        for classifier, part in zip(self.part_classifiers, part_centroids.unbind(2), strict=True):
            cast(ClusterClassifier, classifier).reset(part)

    @classmethod
    def load_official(
        cls, path: str | Path, *, network: dict[str, Any] | None = None, **options: Any
    ) -> PPLRModule:
        """Builds the module that a published checkpoint fits, with its weights.

        Args:
            path: `best.pth` of PPLR's authors, or a checkpoint of Cluster Contrast, SpCL or
                OpenUnReID (docs/checkpoints.md); these have a global branch alone, whose neck the
                parts start with. For this library's there is `load_from_checkpoint`.
            network: Options of the network; `num_parts` and `pooling` are the checkpoint's, where
                it has them.
            **options: Of the module; `max_clusters` is the checkpoint's likewise.

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
        given: dict[str, Any] = {"pooling": weights.pooling, "weights": None}
        if weights.num_parts:
            given["num_parts"] = weights.num_parts
        made = PartNetwork(**{**given, **(network or {})})
        if weights.max_clusters:
            options = {"max_clusters": weights.max_clusters, **options}
        module = cls(made, **options)
        rank_zero_info(load_weights(made, weights))
        if weights.max_clusters == module.max_classes:
            module.load_state_dict(weights.classifiers, strict=False)
        return module

    def training_step(self, batch: TrainBatch, batch_idx: int) -> Tensor:
        """Computes the loss of one P x K batch."""
        output = self.network(batch.images)
        with torch.autocast(self.device.type, enabled=False):  # cosines need all their digits
            losses = self._losses(output, batch)
        if "proxy" in batch.columns:
            spaces = torch.cat([output.features[..., None], output.part_features], dim=2)
            self._seen = F.normalize(spaces.detach(), dim=1)
        self.log_losses(losses, len(batch.images))
        return losses["loss"]

    def end_step(self, batch: TrainBatch) -> None:
        """Moves the proxies of the step's images, those of all ranks in global order."""
        if "proxy" not in batch.columns:
            return
        proxies, targets = cast(CameraProxies, self.proxies), self.gather(batch.columns["proxy"])
        whole, *parts = (
            update_prototypes(rows, features, targets, momentum=self.proxy_momentum)
            for rows, features in zip(
                (proxies.features, *proxies.part_features.unbind(2)),
                self.gather(self._seen).unbind(2),
                strict=True,
            )
        )
        moved = torch.stack(parts, dim=2) if parts else proxies.part_features
        self.proxies = proxies._replace(features=whole, part_features=moved)

    def logits(self, output: PartOutput) -> tuple[Tensor, Tensor]:
        """Scores the C classes from each space's features, (B, C) and (B, C, P)."""
        scores = self.classifier(output.features)
        parts = [
            classifier(features)
            for classifier, features in zip(
                self.part_classifiers, output.part_features.unbind(2), strict=True
            )
        ]
        return scores, torch.stack(parts, dim=2) if parts else scores.new_empty(*scores.shape, 0)

    @torch.no_grad()
    def refine(self, output: PartOutput, targets: Tensor, agreement: Tensor) -> Tensor:
        """Refines labels as the loss does, (B, C), of classes (B,) and agreements (B, P)."""
        part_logits = self.logits(output)[1].float().cpu()
        return refined_labels(part_logits, targets, agreement, beta=self.beta)

    def _losses(self, output: PartOutput, batch: TrainBatch) -> dict[str, Tensor]:
        logits, part_logits = self.logits(output)
        agreement = batch.columns["agreement"]
        targets = self.label_targets(batch)
        pglr = pglr_loss(logits, part_logits, targets, agreement, beta=self.beta)
        triplet = self._triplet_loss(output.features, batch.targets)
        losses = {"loss_pglr": pglr, "loss_triplet": triplet}
        if self.network.num_parts:
            losses["loss_parts"] = self._part_loss(
                part_logits, targets, batch.columns.get("relative_agreement", agreement)
            )
        loss = sum(losses.values(), pglr.new_zeros(()))
        if self.camera_weight:
            losses["loss_camera"] = self._camera_loss(output, batch)
            loss = loss + self.camera_weight * losses["loss_camera"]
        return {"loss": loss, **losses}

    def _part_loss(self, part_logits: Tensor, targets: Tensor, agreement: Tensor) -> Tensor:
        """Averages the part heads' losses over the parts, (B, C, P)."""
        # Every part of an image is a row of its own: the mean over rows is that over the parts.
        rows = part_logits.transpose(1, 2).flatten(0, 1)  # (B * P, C)
        targets = targets.repeat_interleave(part_logits.shape[2], dim=0)
        if not self.aals or self.current_epoch < self.aals_start_epoch:
            return F.cross_entropy(rows, targets, label_smoothing=self.label_smoothing)
        return aals_loss(rows, targets, agreement.flatten())

    def _triplet_loss(self, features: Tensor, targets: Tensor) -> Tensor:
        """Compares the images of all ranks, not only of this one."""
        return softmax_triplet_loss(self.gather(features), self.gather(targets))

    def _camera_loss(self, output: PartOutput, batch: TrainBatch) -> Tensor:
        """Compares each space's features with their cluster's proxies of other cameras."""
        if cast(CameraProxies, self.proxies).labels.device != self.device:  # once an epoch
            self.proxies = CameraProxies(*(p.to(self.device) for p in cast(Any, self.proxies)))
        proxies = cast(CameraProxies, self.proxies)
        whole, *parts = (
            camera_contrastive_loss(
                features, batch.targets, batch.cameras, means, proxies.labels, proxies.cameras
            )
            for features, means in (
                (output.features, proxies.features),
                *zip(output.part_features.unbind(2), proxies.part_features.unbind(2), strict=True),
            )
        )
        return whole + sum(parts[1:], parts[0]) / len(parts) if parts else whole

    def get_extra_state(self) -> dict[str, Any]:
        """Keeps the camera proxies, for a run that goes on in the middle of an epoch."""
        proxies = {} if self.proxies is None else self.proxies._asdict()
        return {"proxies": {name: part.cpu() for name, part in proxies.items()}}

    def set_extra_state(self, state: dict[str, Any]) -> None:
        """Takes them from a checkpoint."""
        self.proxies = CameraProxies(**state["proxies"]) if state["proxies"] else None


class CameraProxies(NamedTuple):
    """What camera-aware PPLR contrasts with: the mean of each cluster in each of its cameras.

    With `proxy_momentum` below 1 what images of the epoch's steps have made of it.

    Attributes:
        features: L2-normalised, from the global features of the M pairs, (M, D).
        part_features: The same for each part, (M, D, P).
        labels: Cluster of each pair, (M,) int64.
        cameras: Camera of each pair, (M,) int64.
    """

    features: Tensor
    part_features: Tensor
    labels: Tensor
    cameras: Tensor
