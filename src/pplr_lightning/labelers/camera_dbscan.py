"""Clusters by a distance in which other cameras have neighbours of their own."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from pplr_lightning import functional as F
from pplr_lightning.data import Sample
from pplr_lightning.functional.camera_jaccard import camera_jaccard_rows
from pplr_lightning.functional.checks import check_cameras, check_counts
from pplr_lightning.labelers.dbscan import check_eps
from pplr_lightning.labelers.labeler import Labeler
from pplr_lightning.labelers.space import Space


class CameraDBSCAN(Labeler):
    """DBSCAN on the camera-aware Jaccard distance (Chen et al., CVPR 2024).

    It ranks neighbours of the same camera and of the others apart
    (`functional.camera_jaccard_distance`), needs the camera of every image, and searches exactly.

    Args:
        k1_intra: Nearest neighbours of the same camera, the image itself left out.
        k1_inter: Nearest neighbours of other cameras; one more is taken, as in the authors' code.
        k2_intra: Neighbours of the same camera over which sets are averaged, the image itself
            included.
        k2_inter: Neighbours of other cameras over which they are.
        eps: Distance up to which images are neighbours, in (0, 1].
        min_samples: Neighbours, itself included, that make an image a core of a cluster.

    Raises:
        ValueError: An option is out of range.
    """

    def __init__(
        self,
        *,
        k1_intra: int = 5,
        k1_inter: int = 20,
        k2_intra: int = 2,
        k2_inter: int = 4,
        eps: float = 0.5,
        min_samples: int = 4,
    ) -> None:
        check_counts("labeler", k1_intra=k1_intra, k1_inter=k1_inter, min_samples=min_samples)
        check_counts("labeler", k2_intra=k2_intra, k2_inter=k2_inter)
        check_eps(eps)
        self.k1 = (k1_intra, k1_inter)
        self.k2 = (k2_intra, k2_inter)
        self.eps = eps
        self.min_samples = min_samples

    def check(self, samples: Sequence[Sample]) -> None:
        """Checks that the camera of every image is known, and that there are two or more.

        Raises:
            ValueError: It is not, or there are not.
        """
        self._check(torch.tensor([sample.camera_id for sample in samples]))

    def _check(self, cameras: Tensor) -> None:
        check_cameras(cameras, len(cameras), "CameraDBSCAN: cameras", "use the labeler DBSCAN")

    def label(self, space: Space) -> Tensor:
        """Clusters all images.

        Raises:
            ValueError: Cameras are not known.
        """
        if space.cameras is None:
            raise ValueError("CameraDBSCAN needs the camera of every image: give the space cameras")
        self._check(space.cameras)
        features = space.features
        with space.stages("jaccard"):
            rows = camera_jaccard_rows(
                features,
                space.cameras,
                space.share,
                k1=self.k1,
                k2=self.k2,
                backend=space.backend,
                max_distance=self.eps,
            )
            distance = space.share.gather_sparse(rows)
        with space.stages("clustering"):
            return F.dbscan(distance, eps=self.eps, min_samples=self.min_samples)
