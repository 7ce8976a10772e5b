"""The values that cross from the label stage to the data, the classifiers and the losses."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor


class CameraProxies(NamedTuple):
    """What camera-aware PPLR contrasts with: the mean of each cluster in each of its cameras.

    Attributes:
        features: L2-normalised means of the global features of the M pairs, (M, D).
        part_features: The same for each part, (M, D, P).
        labels: Cluster of each pair, (M,) int64.
        cameras: Camera of each pair, (M,) int64.
    """

    features: Tensor
    part_features: Tensor
    labels: Tensor
    cameras: Tensor


class PseudoLabels(NamedTuple):
    """Labels of one epoch, for N images, P parts and K clusters, on the CPU.

    Attributes:
        labels: Cluster of each image, (N,) int64; -1 marks an outlier, which is not trained on.
        agreement: Cross agreement between the global and each part space, (N, P), in [0, 1].
        centroids: L2-normalised cluster means of the global features, (K, D).
        part_centroids: The same for each part, (K, D, P).
        proxies: Means of each cluster in each camera; None where cameras are not used.
    """

    labels: Tensor
    agreement: Tensor
    centroids: Tensor
    part_centroids: Tensor
    proxies: CameraProxies | None = None

    @property
    def num_clusters(self) -> int:
        """The number of clusters, K."""
        return len(self.centroids)

    @property
    def outlier_share(self) -> float:
        """The share of images left without a label, in [0, 1]."""
        return (self.labels < 0).double().mean().item()
