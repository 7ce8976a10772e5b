"""DCMIP: Cluster Contrast on two unlike rows of each cluster, and on images that stand for it."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any, cast

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from pplr_lightning.data import EvalBatch, TrainBatch
from pplr_lightning.evaluation.extraction import extract_features
from pplr_lightning.functional import multi_instance_loss, prototype_loss, replace_instances
from pplr_lightning.functional.checks import check_below_one, check_counts
from pplr_lightning.labelers.space import Space
from pplr_lightning.methods.cluster_contrast import ClusterContrastModule
from pplr_lightning.networks import PartNetwork, PartOutput
from pplr_lightning.networks.mean_teacher import averaged_copy, follow
from pplr_lightning.networks.memory import Memory, Rule


class DCMIPModule(ClusterContrastModule):
    """Discrepant and Multi-Instance Proxies (Zou et al., ICCV 2023), as a public code has them.

    Each cluster has two rows, both its mean when the epoch begins: h, which follows its images one
    by one (`update`), and c, which follows the mean of a step's. And it has instances v, S of its
    images as the mean network sees them when the epoch begins, which are replaced by the images of
    each step. With CE as of `prototype_loss`, over the images of all processes,

        L = (CE(u, c) + max(CE(u, h) - margin, 0)) / 2 + multi_instance_loss(u, v).

    The authors published no code. What is followed is that of others, which reaches the paper's
    figures; it trains without instances first (`instances: 0`), then again from its best weights.
    It has one global space, and the network that learns is the one that labels and is tested.

    Args:
        network: Embeds the images; when None that of the published code: no parts, `gem` pooling
            and batch statistics over 64 images (256 on four GPUs).
        temperature: Of both losses, above 0.
        momentum: Share of the old row, in [0, 1).
        update: Which images move h: `every`, or the `hardest` of the batch; published is one of
            them for each data set, it is not known which.
        margin: Of CE(u, h), below which it teaches nothing; 0 or above.
        instances: S, images that stand for a cluster; 0 for none.
        teacher_momentum: Share of the old mean network in each step, in [0, 1).

    Attributes:
        memory: h.
        means: c.
        images: v, (S, C, D).
        teacher: The mean network, with the running statistics of the other; None without instances.

    Raises:
        ValueError: An option is out of range.

    Example:
        >>> module = DCMIPModule(PartNetwork("resnet10t", weights=None, num_parts=0), instances=4)
        >>> module.means.rule
        'mean'
    """

    def __init__(
        self,
        network: PartNetwork | None = None,
        *,
        temperature: float = 0.05,
        momentum: float = 0.1,
        update: Rule = "every",
        margin: float = 0.2,
        instances: int = 16,
        teacher_momentum: float = 0.999,
    ) -> None:
        super().__init__(network, temperature=temperature, momentum=momentum, update=update)
        if not 0 <= margin < math.inf:
            raise ValueError(f"margin={margin}: must be finite and not negative")
        check_counts("model", least=0, instances=instances)
        check_below_one(teacher_momentum=teacher_momentum)
        self.margin = margin
        self.teacher_momentum = teacher_momentum
        self.means = Memory(momentum=momentum, rule="mean")
        self.teacher = averaged_copy(self.network) if instances else None
        self.instances = instances
        self.images = torch.empty(0, 0, 0)  # no buffer, which DDP would broadcast in every step
        self.save_hyperparameters(ignore=["network"])

    def embed_batches(self, batches: Iterable[EvalBatch]) -> tuple[Tensor, Tensor]:
        """Embeds the images by the network and, where parts would stand, by the teacher."""
        if self.teacher is None:
            return super().embed_batches(batches)
        with torch.no_grad():
            for own, other in zip(self.teacher.buffers(), self.network.buffers(), strict=True):
                own.copy_(other)
        return extract_features(cast(PartNetwork, _Both(self.network, self.teacher)), batches)

    def begin_epoch(self, space: Space, classes: Tensor) -> dict[str, Tensor]:
        """Starts both rows from the classes' means, and draws the instances."""
        super().begin_epoch(space, classes)
        self.means.reset(self.memory.rows)
        if self.teacher is not None:
            key = (0 if self.data is None else self.data.seed, self.current_epoch)
            drawn = draw_images(classes.numpy(), self.instances, np.random.default_rng(key))
            of_teacher, images = space.part_features[..., 0], torch.from_numpy(drawn)
            own = (images >= space.share.start) & (images < space.share.stop)
            rows = torch.zeros(*images.shape, of_teacher.shape[1], dtype=of_teacher.dtype)
            rows[own] = of_teacher[(images[own] - space.share.start).to(of_teacher.device)].cpu()
            self.images = space.share.sum(rows)  # each is of one rank
        return {}

    def training_step(self, batch: TrainBatch, batch_idx: int) -> Tensor:
        """Computes the losses against rows and instances as they were before this step."""
        features = self.network(batch.images).features
        labels, options = self.label_targets(batch), {"temperature": self.temperature}
        with torch.autocast(self.device.type, enabled=False):  # cosines need all their digits
            unit = F.normalize(features, dim=1)
            of_means, of_images = (
                prototype_loss(unit, rows.rows_for(unit), labels, **options)
                for rows in (self.means, self.memory)
            )
            # Of all ranks, so that it is the same images' mean that is compared with the margin.
            beyond = (self.gather(of_images[None]).mean() - self.margin).clamp(min=0)
            losses = {"loss_rows": (of_means + beyond) / 2}
            if self.instances:
                self.images = self.images.to(unit)
                losses["loss_instances"] = multi_instance_loss(
                    unit, self.images, batch.targets, **options
                )
            loss = sum(losses.values(), unit.new_zeros(()))
        self._seen = (unit.detach(), batch.targets)
        self.log_losses({"loss": loss, **losses}, len(features))
        return loss

    def end_step(self, batch: TrainBatch) -> None:
        """Moves the rows towards the step's features, and puts these in their instances' place."""
        features, targets = (self.gather(one) for one in self._seen)
        self.memory.update(features, targets)
        self.means.update(features, targets)
        if self.teacher is not None:
            self.images = replace_instances(self.images, features, targets)
            follow(self.teacher, self.network, momentum=self.teacher_momentum)

    def get_extra_state(self) -> dict[str, Any]:
        """Keeps the instances, for a run that goes on in the middle of an epoch."""
        return {"images": self.images.cpu()}

    def set_extra_state(self, state: dict[str, Any]) -> None:
        """Takes them from a checkpoint."""
        self.images = state["images"]


def draw_images(
    classes: NDArray[np.int64], count: int, generator: np.random.Generator
) -> NDArray[np.int64]:
    """Draws images of each class with replacement.

    Args:
        classes: Of all images, 0 to C - 1, each of some, -1 for none, (N,).
        count: Images of each class, S.
        generator: Of the draws.

    Returns:
        Images, (S, C).

    Example:
        >>> draw_images(np.array([1, -1, 0]), 2, np.random.default_rng(0))
        array([[2, 0],
               [2, 0]])
    """
    order, sizes = classes.argsort(kind="stable"), np.bincount(classes[classes >= 0])
    first = (classes < 0).sum() + sizes.cumsum() - sizes
    return order[first + (generator.random((count, len(sizes))) * sizes).astype(np.int64)]


class _Both(nn.Module):
    """Embeds by the network and, as its only part, by the teacher."""

    def __init__(self, network: PartNetwork, teacher: PartNetwork) -> None:
        super().__init__()
        self.network, self.teacher = network, teacher
        self.num_features, self.num_parts = network.num_features, 1

    def forward(self, images: Tensor) -> PartOutput:
        """Embeds images (B, 3, H, W)."""
        return PartOutput(self.network(images).features, self.teacher(images).features[..., None])
