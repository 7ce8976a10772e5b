"""The true identities, for what is supervised."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from pplr_lightning.data import Sample
from pplr_lightning.labelers.labeler import Labeler
from pplr_lightning.labelers.space import Space


class Identities(Labeler):
    """Trains on the true person ids: the supervised baseline, not label-free.

    To pretrain on another data set, or as an upper bound. It searches nothing.
    """

    def check(self, samples: Sequence[Sample]) -> None:
        """Checks that identities are known.

        Raises:
            ValueError: They are not.
        """
        if len({sample.person_id for sample in samples} - {-1}) < 2:
            raise ValueError(
                "the labeler Identities needs a data set with person ids: use DBSCAN, which needs "
                "none"
            )

    def label(self, space: Space) -> Tensor:
        """Numbers the known identities from 0; an image without one gets -1.

        Raises:
            ValueError: The space has no identities.
        """
        if space.persons is None:
            raise ValueError("Identities needs the identity of the images: give the space persons")
        classes = space.persons.clone()
        known = classes >= 0
        classes[known] = torch.unique(classes[known], return_inverse=True)[1]
        return classes
