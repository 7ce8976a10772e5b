"""Every image a class of its own."""

from __future__ import annotations

import torch
from torch import Tensor

from pplr_lightning.labelers.labeler import Labeler
from pplr_lightning.labelers.space import Space


class Instances(Labeler):
    """Instance discrimination, as SimCLR and instance memories have it; needs no features."""

    def label(self, space: Space) -> Tensor:
        """Numbers the images."""
        return torch.arange(space.total)
