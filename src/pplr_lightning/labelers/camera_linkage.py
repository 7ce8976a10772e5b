"""Average linkage within each camera, and across them by what a method's heads see in an image."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from pplr_lightning.data import Sample
from pplr_lightning.functional.checks import check_cameras, check_counts, check_fraction
from pplr_lightning.functional.linkage import (
    average_linkage,
    camera_distance,
    mix_rate,
    reciprocal_distance,
)
from pplr_lightning.labelers.labeler import Labeler
from pplr_lightning.labelers.space import Space


class CameraLinkage(Labeler):
    """The clusters of IICS (Xuan & Zhang, CVPR 2021), those of its variant with thresholds.

    Where the space has scores, as `IICSModule` gives them before every second epoch, images of all
    cameras are clustered by `functional.linkage.camera_distance`; otherwise those of each camera by
    1 - cosine, and no class is of two cameras. Either is re-ranked (`reciprocal_distance`) and
    merged by `average_linkage`. There are no outliers.

    It holds matrices of N x N numbers, as published: some 24 N² bytes, on the first process alone.

    Args:
        k1: Neighbours that are tested for reciprocity, the image itself left out.
        k2: Neighbours whose encodings are averaged, the image itself included.
        lambda_: Weight of the distance itself beside that of the neighbours, in [0, 1].
        share_within: Share of the pairs of a camera whose largest distance ends the merging, in
            (0, 1).
        share_across: The same across cameras.
        mix_rate: Weight of the scores at first, 0 or above; it falls to 0.
        rounds: Labellings across cameras in which it falls: half of the run's epochs.

    Raises:
        ValueError: An option is out of range.

    Example:
        >>> features = torch.nn.functional.normalize(torch.randn(40, 8), dim=1)
        >>> cameras = torch.arange(40) % 2
        >>> classes = CameraLinkage(k1=8).label(Space.of(features, cameras=cameras))
        >>> bool(classes[cameras == 0].max() < classes[cameras == 1].min())
        True
    """

    def __init__(
        self,
        *,
        k1: int = 20,
        k2: int = 6,
        lambda_: float = 0.3,
        share_within: float = 0.0025,
        share_across: float = 0.0017,
        mix_rate: float = 0.02,
        rounds: int = 40,
    ) -> None:
        check_counts("labeler", k1=k1, k2=k2, rounds=rounds)
        check_fraction("labeler.lambda_", lambda_, "the paper uses 0.3")
        for name, value in (("share_within", share_within), ("share_across", share_across)):
            if not 0 < value < 1:
                raise ValueError(f"labeler.{name}={value}: must lie in (0, 1)")
        if not 0 <= mix_rate < float("inf"):
            raise ValueError(f"labeler.mix_rate={mix_rate}: must be finite and not negative")
        self.k1, self.k2, self.lambda_ = k1, k2, lambda_
        self.share_within, self.share_across = share_within, share_across
        self.mix_rate = mix_rate
        self.rounds = rounds
        self.round = 0  # labellings across cameras so far

    def check(self, samples: Sequence[Sample]) -> None:
        """Checks that there are cameras, each of enough images.

        Raises:
            ValueError: There are not.
        """
        cameras = torch.tensor([sample.camera_id for sample in samples])
        check_cameras(cameras, len(samples), "CameraLinkage: cameras", "use the labeler DBSCAN")
        camera, images = min(Counter(cameras.tolist()).items(), key=lambda item: item[1])
        if images <= max(self.k1, self.k2 - 1):
            raise ValueError(
                f"camera {camera} has {images} images, too few for labeler.k1={self.k1} and "
                f"k2={self.k2}: lower them, or leave the camera out"
            )

    def label(self, space: Space) -> Tensor:
        """Clusters all images on the first process, and tells the others.

        Raises:
            ValueError: Cameras are not known, or one has too few images.
        """
        if space.cameras is None:
            raise ValueError("CameraLinkage needs cameras: give them to the space")
        share, scores = space.share, space.scores
        features = share.gather(space.features.cpu())
        if scores is not None:
            scores = share.gather(scores.cpu())
            self.round += 1
        with space.stages("clustering"):
            classes = torch.empty(0, dtype=torch.int64)
            if not share.rank:
                classes = self._cluster(features, space.cameras, scores)
            return share.gather(classes)

    def _cluster(self, features: Tensor, cameras: Tensor, scores: Tensor | None) -> Tensor:
        if scores is not None:
            rate = mix_rate(self.round - 1, self.rounds, start=self.mix_rate)
            distance = camera_distance(features, cameras, scores, mix_rate=rate)
            return self._merge(distance, self.share_across)
        classes = torch.empty(len(features), dtype=torch.int64)
        count = 0
        for camera in cameras.unique():
            own = features[cameras == camera]
            found = self._merge(1 - own @ own.T, self.share_within)
            classes[cameras == camera] = found + count
            count += int(found.max()) + 1
        return classes

    def _merge(self, distance: Tensor, share: float) -> Tensor:
        ranked = reciprocal_distance(distance, k1=self.k1, k2=self.k2, lambda_=self.lambda_)
        return average_linkage(ranked, share=share)[0]

    def state_dict(self) -> dict[str, Any]:
        """Keeps the number of labellings across cameras."""
        return {"round": self.round}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Takes it."""
        self.round = state_dict["round"]
