"""Clusters by a distance in which other cameras have neighbours of their own."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from scipy.sparse import csr_matrix
from torch import Tensor

from pplr_lightning.data import Sample
from pplr_lightning.functional.camera_jaccard import camera_jaccard_rows
from pplr_lightning.functional.checks import check_cameras, check_counts
from pplr_lightning.labelers.density import DensityLabeler
from pplr_lightning.labelers.space import Space


class CameraDBSCAN(DensityLabeler):
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
        rho: Share of the smallest distances of all pairs whose mean, in the first epoch, is taken
            for eps in all epochs (`functional.choose_eps`), in (0, 1), as MMT and GCL choose it;
            None takes `eps`.
        cannot_link: Two boxes in one frame are two people: where the data say the frame
            (`Sample.frame`), no cluster holds two images, or tracklets, that were seen in one frame
            of one camera.

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
        rho: float | None = None,
        cannot_link: bool = True,
    ) -> None:
        check_counts("labeler", k1_intra=k1_intra, k1_inter=k1_inter)
        check_counts("labeler", k2_intra=k2_intra, k2_inter=k2_inter)
        super().__init__(eps=eps, min_samples=min_samples, rho=rho, cannot_link=cannot_link)
        self.k1 = (k1_intra, k1_inter)
        self.k2 = (k2_intra, k2_inter)

    def check(self, samples: Sequence[Sample]) -> None:
        """Checks that the camera of every image is known, and that there are two or more.

        Raises:
            ValueError: It is not, or there are not.
        """
        self._check(torch.tensor([sample.camera_id for sample in samples]))

    def _check(self, cameras: Tensor) -> None:
        check_cameras(cameras, len(cameras), "CameraDBSCAN: cameras", "use the labeler DBSCAN")

    def distance(self, space: Space, max_distance: float) -> csr_matrix:
        """Computes the camera-aware Jaccard distance.

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
                max_distance=max_distance,
            )
            return space.share.gather_sparse(rows)
