"""ISE: Cluster Contrast, also on points between clusters that stand for images not seen."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from pplr_lightning.data import TrainBatch
from pplr_lightning.functional import label_preserving_loss, prototype_loss, support_samples
from pplr_lightning.functional.checks import check_counts, check_positive
from pplr_lightning.functional.supports import support_degree
from pplr_lightning.methods.cluster_contrast import ClusterContrastModule
from pplr_lightning.networks import PartNetwork
from pplr_lightning.networks.memory import Rule


class ISEModule(ClusterContrastModule):
    """Implicit Sample Extension (Zhang et al., CVPR 2022) on Cluster Contrast.

    Each image's unit feature u_i has supports s, moved from its own cluster's row c_y towards the
    rows of the nearest others (`support_samples`), farther the later in the run. The loss is

        L = prototype_loss([u; s], c, [y; y]) + w label_preserving_loss(u, s, y, y).

    The memory follows images and supports, all images first. It has one global space.

    Args:
        network: Embeds the images; when None that of the published code: no parts, `avg` pooling
            and batch statistics over 64 images (256 on four GPUs).
        temperature: Of the prototype loss, above 0.
        momentum: Share of the old row of the memory, in [0, 1).
        update: Which rows move one of the memory: `every`, the `hardest` of the batch, as published
            for Market-1501, or their `mean`.
        degree: How far supports move in the end, half of it times the way between two rows, >= 0.
        neighbors: Other clusters that an image has supports towards.
        preserving_weight: w, >= 0.
        preserving_temperature: Of the label preserving loss, above 0.

    Raises:
        ValueError: An option is out of range.

    Example:
        >>> module = ISEModule(PartNetwork("resnet10t", weights=None, num_parts=0))
        >>> module.memory.rule
        'hardest'
    """

    def __init__(
        self,
        network: PartNetwork | None = None,
        *,
        temperature: float = 0.05,
        momentum: float = 0.2,
        update: Rule = "hardest",
        degree: float = 1.0,
        neighbors: int = 1,
        preserving_weight: float = 0.1,
        preserving_temperature: float = 0.6,
    ) -> None:
        super().__init__(
            network or PartNetwork(image_size=(256, 128), num_parts=0, norm_batch_size=64),
            temperature=temperature,
            momentum=momentum,
            update=update,
        )
        for name, value in (("degree", degree), ("preserving_weight", preserving_weight)):
            if not 0 <= value < float("inf"):
                raise ValueError(f"{name}={value}: must be finite and not negative")
        check_positive(preserving_temperature=preserving_temperature)
        check_counts("model", neighbors=neighbors)
        self.degree = degree
        self.neighbors = neighbors
        self.preserving_weight = preserving_weight
        self.preserving_temperature = preserving_temperature
        self.save_hyperparameters(ignore=["network"])

    def setup(self, stage: str) -> None:
        """Checks that it is known how long the run is.

        Raises:
            ValueError: It is not.
        """
        epochs = self.trainer.max_epochs
        if stage == "fit" and (epochs is None or epochs < 1):
            raise ValueError(
                f"trainer.max_epochs={epochs}: ISE moves supports by how much of the run is done; "
                "give a number of epochs"
            )
        super().setup(stage)

    def training_step(self, batch: TrainBatch, batch_idx: int) -> Tensor:
        """Computes the loss against the memory as it was before this step."""
        features = self.network(batch.images).features
        each = int(self.trainer.num_training_batches)
        degree = support_degree(
            self.current_epoch * each + batch_idx,
            each * (self.trainer.max_epochs or 1),
            base=self.degree,
        )
        with torch.autocast(self.device.type, enabled=False):  # cosines need all their digits
            unit = F.normalize(features, dim=1)
            rows = self.memory.rows_for(unit)
            supports = support_samples(
                unit, batch.targets, rows, degree=degree, neighbors=self.neighbors
            )
            labels = self.label_targets(batch)
            extension = prototype_loss(
                torch.cat([unit, supports]),
                rows,
                torch.cat([labels, labels.repeat_interleave(self.neighbors, dim=0)]),
                temperature=self.temperature,
            )
            # Of all ranks, whose images' losses these supports have gradients from.
            supports = self.gather(supports)
            targets = self.gather(batch.targets)
            of_supports = targets.repeat_interleave(self.neighbors)
            preserving = label_preserving_loss(
                unit, supports, batch.targets, of_supports, temperature=self.preserving_temperature
            )
            loss = extension + self.preserving_weight * preserving
        seen = torch.cat([self.gather(unit.detach()), supports.detach()])
        self._seen = (seen, torch.cat([targets, of_supports]))
        losses = {"loss": loss, "loss_extension": extension, "loss_preserving": preserving}
        self.log_losses(losses, len(batch.images))
        return loss

    def end_step(self, batch: TrainBatch) -> None:
        """Moves the memory towards the step's features and supports, those of all ranks."""
        self.memory.update(*self._seen)
