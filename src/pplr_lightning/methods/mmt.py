"""Mutual mean teaching: two networks, each taught by the other's slow average."""

from __future__ import annotations

import copy
from collections.abc import Iterable
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pplr_lightning.data import EvalBatch, TrainBatch
from pplr_lightning.evaluation.extraction import extract_features, unit_features
from pplr_lightning.functional import (
    soft_cross_entropy,
    soft_triplet_loss,
    softmax_triplet_loss,
)
from pplr_lightning.functional.checks import MOST_CLASSES, check_below_one, check_counts
from pplr_lightning.labelers.space import Space
from pplr_lightning.lightning_internals import trainer_of
from pplr_lightning.methods.base import ReIDModule
from pplr_lightning.networks import ClusterClassifier, PartNetwork, PartOutput
from pplr_lightning.networks.mean_teacher import averaged_copy, follow, warm_momentum


class MMTModule(ReIDModule):
    """Mutual Mean-Teaching (Ge et al., ICLR 2020): two networks, each taught by the other's mean.

    Students A and B see two views of the same images, as do their mean teachers A' and B', which
    follow them by `follow` after each step. Of pooled features f, before the neck, and logits z the
    loss is, with w the two weights,

        L = sum over (A, B'), (B, A') of
            (1 - w_id) CE(z, y) + w_id softCE(z, z') + (1 - w_tri) Tri(f, y) + w_tri softTri(f, f').

    Labels are made of the mean of the teachers' features, with any labeler that clusters; all four
    classifiers start an epoch from the classes' means, and the optimiser without its moments. As
    the students start alike, the views alone make them differ. `network` is A', which is tested; it
    has one global space.

    Args:
        network: Embeds the images; when None without parts and with `gem` pooling, as the published
            unsupervised setting. All four start as it is.
        max_clusters: Classifier rows, the most clusters that are trained on.
        soft_identity: w_id, in [0, 1].
        soft_triplet: w_tri, in [0, 1].
        label_smoothing: Of the plain cross entropy CE, in [0, 1].
        momentum: Share of the old teacher in the end, in [0, 1); until then a plain mean of all
            students.

    Attributes:
        students: A and B.
        other_teacher: B'.
        classifiers: Of A and B.
        mean_classifiers: Of A' and B'.

    Raises:
        ValueError: An option is out of range, or the network has parts.

    Example:
        >>> network = PartNetwork("resnet10t", weights=None, num_parts=0)
        >>> module = MMTModule(network, max_clusters=64)
        >>> [parameter.requires_grad for parameter in module.network.neck.parameters()]
        [False, False]
    """

    takes_soft_labels = True

    def __init__(
        self,
        network: PartNetwork | None = None,
        *,
        max_clusters: int = 3000,
        soft_identity: float = 0.5,
        soft_triplet: float = 0.8,
        label_smoothing: float = 0.1,
        momentum: float = 0.999,
    ) -> None:
        shares = {
            "soft_identity": soft_identity,
            "soft_triplet": soft_triplet,
            "label_smoothing": label_smoothing,
        }
        for name, value in shares.items():
            if not 0 <= value <= 1:
                raise ValueError(f"{name}={value}: must lie in [0, 1]")
        check_below_one(momentum=momentum)
        check_counts("model", least=2, most=MOST_CLASSES, max_clusters=max_clusters)
        network = network or PartNetwork(image_size=(256, 128), num_parts=0, pooling="gem")
        if network.num_parts:
            raise ValueError(
                f"network.num_parts={network.num_parts}: MMT trains the global feature alone; use 0"
            )
        super().__init__(network)
        self.lr_scheduler = None
        self.students = nn.ModuleList(copy.deepcopy(network) for _ in range(2))
        network.requires_grad_(False)
        self.other_teacher = averaged_copy(network)
        classifier = ClusterClassifier(network.num_features, max_clusters)
        self.classifiers = nn.ModuleList([classifier, copy.deepcopy(classifier)])
        self.mean_classifiers = averaged_copy(self.classifiers)
        self.soft_identity, self.soft_triplet = soft_identity, soft_triplet
        self.label_smoothing = label_smoothing
        self.momentum = momentum
        self.save_hyperparameters(ignore=["network"])

    @property
    def max_classes(self) -> int:
        """Rows of the classifiers."""
        return len(cast(ClusterClassifier, self.classifiers[0]).weight)

    @property
    def teachers(self) -> tuple[PartNetwork, PartNetwork]:
        """A' and B'."""
        return self.network, self.other_teacher

    def setup(self, stage: str) -> None:
        """Checks that there are two views of each image.

        Raises:
            ValueError: There are not.
        """
        if stage == "fit" and self.data is not None and self.data.views != 2:
            raise ValueError(
                f"data.views={self.data.views}: MMT's two networks start alike, and two views of "
                "each image make them differ; use 2"
            )
        super().setup(stage)

    def embed_batches(self, batches: Iterable[EvalBatch]) -> tuple[Tensor, Tensor]:
        """Embeds the images by the mean of both teachers."""
        return extract_features(cast(PartNetwork, _Mean(*self.teachers)), batches)

    def begin_epoch(self, space: Space, classes: Tensor) -> dict[str, Tensor]:
        """Sets the classifiers to the classes' means, and the optimiser back."""
        with space.stages("centroids"):
            centroids = space.centroids(classes)[0]
        for classifier in (*self.classifiers, *self.mean_classifiers):
            cast(ClusterClassifier, classifier).reset(centroids)
        trainer = trainer_of(self)
        for optimizer in [] if trainer is None else trainer.optimizers:
            optimizer.state.clear()  # as a new one, which the authors make in every epoch
        return {}

    def training_step(self, batch: TrainBatch, batch_idx: int) -> Tensor:
        """Computes the loss of both students, each under the other's teacher."""
        views = (batch.images, *batch.more_views)
        learn = _forward(self.students, views)
        with torch.no_grad():
            told = _forward(self.teachers, views)
        with torch.autocast(self.device.type, enabled=False):  # distances need all their digits
            learn = _classified(self.classifiers, learn)
            told = _classified(self.mean_classifiers, told)
            first = self._losses(learn[0], told[1], batch)
            second = self._losses(learn[1], told[0], batch)
            losses = {name: first[name] + second[name] for name in first}
        self.log_losses(losses, len(batch.images))
        return losses["loss"]

    def _losses(
        self, learn: tuple[Tensor, Tensor], told: tuple[Tensor, Tensor], batch: TrainBatch
    ) -> dict[str, Tensor]:
        """Compares a student's pooled features (B, D) and logits (B, C) with a teacher's."""
        (pooled, logits), (told_pooled, told_logits) = learn, told
        # Triplets are found among the images of all ranks.
        pooled, told_pooled = self.gather(pooled), self.gather(told_pooled)
        all_targets = self.gather(batch.targets)
        identity = F.cross_entropy(
            logits, self.label_targets(batch), label_smoothing=self.label_smoothing
        )
        losses = {
            "loss_identity": identity,
            "loss_soft_identity": soft_cross_entropy(logits, told_logits),
            "loss_triplet": softmax_triplet_loss(pooled, all_targets),
            "loss_soft_triplet": soft_triplet_loss(pooled, told_pooled, all_targets),
        }
        soft, tri = self.soft_identity, self.soft_triplet
        weights = (1 - soft, soft, 1 - tri, tri)
        parts = [weight * loss for weight, loss in zip(weights, losses.values(), strict=True)]
        return {"loss": torch.stack(parts).sum(), **losses}

    def end_step(self, batch: TrainBatch) -> None:
        """Moves the teachers and their classifiers towards the students."""
        momentum = warm_momentum(self.global_step, self.momentum)
        for teacher, student in zip(self.teachers, self.students, strict=True):
            follow(teacher, student, momentum=momentum)
        follow(self.mean_classifiers, self.classifiers, momentum=momentum)


def _forward(
    networks: Iterable[nn.Module], views: tuple[Tensor, ...]
) -> list[tuple[Tensor, Tensor]]:
    """Embeds each view (B, 3, H, W) by its network: before the neck and after it, (B, D)."""
    embedded = (
        cast(PartNetwork, network).forward_pooled(images)
        for network, images in zip(networks, views, strict=True)
    )
    return [(pooled, output.features) for output, pooled in embedded]


def _classified(
    classifiers: Iterable[nn.Module], embedded: list[tuple[Tensor, Tensor]]
) -> list[tuple[Tensor, Tensor]]:
    """Puts logits (B, C) in the place of the features after the neck."""
    return [
        (pooled, classifier(features))
        for classifier, (pooled, features) in zip(classifiers, embedded, strict=True)
    ]


class _Mean(nn.Module):
    """Embeds by the mean of the unit features of two networks."""

    def __init__(self, *networks: PartNetwork) -> None:
        super().__init__()
        self.networks = nn.ModuleList(networks)
        self.num_features, self.num_parts = networks[0].num_features, networks[0].num_parts

    def forward(self, images: Tensor) -> PartOutput:
        """Embeds images (B, 3, H, W)."""
        outputs = [unit_features(network(images)) for network in self.networks]
        return PartOutput(*(torch.stack(each).mean(0) for each in zip(*outputs, strict=True)))
