"""Learning rates over the epochs, for the command line's section `lr_scheduler`."""

from __future__ import annotations

import math

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from pplr_lightning.functional.checks import check_counts


class WarmUpCosine(LambdaLR):
    """Raises the learning rate in the first epochs, then lowers it along half a cosine.

    What transformers are trained with. Each group of parameters keeps its share of the rate.
    Torch's `SequentialLR` of `LinearLR` and `CosineAnnealingLR` is the same, but cannot be named in
    a config: it takes schedules that have their optimiser already.

    Args:
        optimizer: Whose rates are the highest.
        epochs: After which the rate is at its end; 1 or more.
        warm_up: First epochs, in which it rises from `start`; fewer than `epochs`.
        start: Where it starts, as a share of the highest.
        end: Where it ends, likewise.
        last_epoch: As of torch's schedules.

    Raises:
        ValueError: `warm_up` is not in [0, epochs).

    Example:
        >>> import torch
        >>> optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
        >>> schedule = WarmUpCosine(optimizer, epochs=4, warm_up=2, start=0.5)
        >>> [round(schedule.share(epoch), 3) for epoch in range(5)]
        [0.5, 0.75, 1.0, 0.5, 0.0]
    """

    def __init__(
        self,
        optimizer: Optimizer,
        epochs: int,
        warm_up: int = 5,
        start: float = 0.01,
        end: float = 0.0,
        last_epoch: int = -1,
    ) -> None:
        check_counts("lr_scheduler", epochs=epochs)
        if not 0 <= warm_up < epochs:
            raise ValueError(f"lr_scheduler.warm_up={warm_up}: must lie in [0, epochs={epochs})")
        self.epochs, self.warm_up, self.start, self.end = epochs, warm_up, start, end
        super().__init__(optimizer, self.share, last_epoch)

    def share(self, epoch: int) -> float:
        """Returns the share of the highest rate in an epoch, 0 the first."""
        if epoch < self.warm_up:
            return self.start + (1 - self.start) * epoch / self.warm_up
        done = min(1.0, (epoch - self.warm_up) / (self.epochs - self.warm_up))
        return self.end + (1 - self.end) * (1 + math.cos(math.pi * done)) / 2
