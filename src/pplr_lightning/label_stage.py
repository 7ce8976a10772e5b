"""From features to pseudo labels, without a Trainer; the heart is `LabelStage.label`."""

from __future__ import annotations

from typing import Literal

import torch
from lightning.pytorch.utilities import rank_zero_info
from scipy.sparse import csr_matrix
from torch import Tensor

from pplr_lightning import functional as F
from pplr_lightning.clusters import fit_rows, mean_features, number_identities
from pplr_lightning.functional.agreement import overlap
from pplr_lightning.functional.camera_jaccard import camera_jaccard_rows
from pplr_lightning.functional.checks import check_cameras, check_count, check_features
from pplr_lightning.functional.clustering import camera_pairs
from pplr_lightning.functional.jaccard import jaccard_rows
from pplr_lightning.functional.neighbors import is_approximate, recall, search
from pplr_lightning.functional.sharding import Share
from pplr_lightning.pseudo_labels import CameraProxies, PseudoLabels
from pplr_lightning.stages import Stages


class LabelStage:
    """Clusters images by their features and scores how far to trust each one's label.

    `PseudoLabeling` is this stage as a callback. Each rank searches and scores its share of the
    images; neighbour lists and the sparse rows of the Jaccard distance are gathered, so that all
    ranks find the same labels. Fewer than two clusters stop the run: there is nothing to tell
    apart. Of more clusters than the model has classifier rows, the largest are trained on, with a
    warning.

    Args:
        k1: Nearest neighbours for the Jaccard distance, the image itself included.
        k2: Neighbours over which its sets are averaged, likewise.
        eps: Jaccard distance up to which images are neighbours for DBSCAN, in (0, 1].
        min_samples: Neighbours, itself included, that make an image a core of a cluster.
        agreement_k: Nearest neighbours for the cross agreement, the image itself left out.
        backend: Search with FAISS or torch; `auto` takes the fastest at hand.
        index: `flat` finds the nearest neighbours. `ivf` finds most of them, much faster, for
            50,000 images and more; each epoch's recall is measured on a sample and printed.
        probes: Cells that `ivf` searches for each image; more find more.
        camera_jaccard: Cluster by the camera-aware Jaccard distance, which ranks neighbours of the
            same camera and of the others apart (Chen et al., CVPR 2024), instead of the plain one.
            It needs the camera of every image, takes the four counts below in place of k1 and k2,
            and is searched exactly whatever the index.
        k1_intra: Nearest neighbours of the same camera, the image itself left out.
        k1_inter: Nearest neighbours of other cameras; one more is taken, as in the authors' code.
        k2_intra: Neighbours of the same camera over which sets are averaged, the image itself
            included.
        k2_inter: Neighbours of other cameras over which they are.
        source: `clusters` is PPLR. `identities` trains on the true person ids instead: the
            supervised baseline, to pretrain on another set or as an upper bound; not label-free.

    Raises:
        ValueError: An option is out of range.
    """

    def __init__(
        self,
        *,
        k1: int = 30,
        k2: int = 6,
        eps: float = 0.5,
        min_samples: int = 4,
        agreement_k: int = 20,
        backend: Literal["auto", "faiss", "faiss-gpu", "torch"] = "auto",
        index: Literal["flat", "ivf"] = "flat",
        probes: int = 64,
        camera_jaccard: bool = False,
        k1_intra: int = 5,
        k1_inter: int = 20,
        k2_intra: int = 2,
        k2_inter: int = 4,
        source: Literal["clusters", "identities"] = "clusters",
    ) -> None:
        for name, count in (
            ("k1", k1),
            ("k2", k2),
            ("min_samples", min_samples),
            ("agreement_k", agreement_k),
            ("probes", probes),
            ("k1_intra", k1_intra),
            ("k1_inter", k1_inter),
            ("k2_intra", k2_intra),
            ("k2_inter", k2_inter),
        ):
            if count < 1:
                raise ValueError(f"pseudo_labels.{name}={count}: must be at least 1")
        if not 0 < eps <= 1:
            raise ValueError(f"pseudo_labels.eps={eps}: a Jaccard distance lies in (0, 1]")
        if source not in ("clusters", "identities"):
            raise ValueError(f"pseudo_labels.source={source!r}: choose 'clusters' or 'identities'")
        self.k1 = k1
        self.k2 = k2
        self.eps = eps
        self.min_samples = min_samples
        self.agreement_k = agreement_k
        self.backend = backend
        self.index = index
        self.probes = probes
        self.camera_jaccard = camera_jaccard
        self.k1_intra = k1_intra
        self.k1_inter = k1_inter
        self.k2_intra = k2_intra
        self.k2_inter = k2_inter
        self.source = source

    @property
    def num_neighbors(self) -> int:
        """Columns of the one search that serves agreement and plain Jaccard distance."""
        jaccard = 1 if self.camera_jaccard else max(self.k1, self.k2)
        return max(jaccard, self.agreement_k + 1)

    def check_cameras(self, cameras: Tensor | None, images: int) -> None:
        """Checks that the distance has the cameras that it needs.

        Args:
            cameras: Camera of each image, -1 if it is not known, (N,).
            images: N.

        Raises:
            ValueError: It has not.
        """
        if not self.camera_jaccard:
            return
        otherwise = "set pseudo_labels.camera_jaccard to false"
        if cameras is None:
            raise ValueError(
                f"pseudo_labels.camera_jaccard needs cameras: pass them, or {otherwise}"
            )
        check_cameras(cameras, images, "pseudo_labels.camera_jaccard: cameras", otherwise)

    def label(
        self,
        features: Tensor,
        part_features: Tensor,
        *,
        max_clusters: int | None = None,
        person_ids: Tensor | None = None,
        cameras: Tensor | None = None,
        proxies: bool = True,
        share: Share | None = None,
        stages: Stages | None = None,
    ) -> PseudoLabels:
        """Turns L2-normalised features (N, D) and part features (N, D, P) into labels.

        Args:
            features: This rank's rows where several share the work, which talk over the CPU; one
                rank alone has its GPU, if it has one with room for them, do all that is dense.
            part_features: Likewise.
            max_clusters: Keep the largest of more clusters than this.
            person_ids: True identities (N,), read only where `source` is `identities`.
            cameras: Camera of each of the N images, for `camera_jaccard` and for proxies.
            proxies: Average each cluster in each of its cameras, if cameras are given.
            share: This rank's rows among all; None where it has all.
            stages: Measures `neighbors`, `jaccard` and `dbscan` (of clusters), `agreement` (with
                the search in the part spaces) and `centroids`.

        Returns:
            The labels of all images, the same on every rank.

        Raises:
            ValueError: Fewer than two clusters were found, there are fewer images than neighbours,
                a feature is not finite or not normalised, or `camera_jaccard` lacks cameras.
            RuntimeError: Another rank had to stop.
        """
        stages = stages or Stages()
        with share or Share(len(features)) as share:
            if share.alone:
                features, part_features = _to_gpu(features, part_features)
            self._check(features, part_features, share)
            identities = person_ids if self.source == "identities" else None
            if identities is None:
                self.check_cameras(cameras, share.total)
            with stages("neighbors"):
                neighbors = self._search(features, self.num_neighbors, share)
            if is_approximate(self.index, share):
                found = recall(features, neighbors, share, backend=self.backend)
                rank_zero_info(f"approximate neighbours: a recall of {found:.4f} on a sample")
            if identities is None:
                labels = self._cluster(features, neighbors, cameras, share, stages)
            else:
                labels = number_identities(identities)
            labels = fit_rows(labels, max_clusters)
            agreement = self._agree(neighbors, part_features, share, stages)
            with stages("centroids"):
                centroids, part_centroids = mean_features(features, part_features, labels, share)
                by_camera = None
                if proxies and cameras is not None:
                    pairs, clusters, seen_by = camera_pairs(labels, cameras)
                    means = mean_features(features, part_features, pairs, share)
                    by_camera = CameraProxies(*means, clusters, seen_by)
            return PseudoLabels(
                labels=labels,
                agreement=agreement,
                centroids=centroids,
                part_centroids=part_centroids,
                proxies=by_camera,
            )

    def _check(self, features: Tensor, part_features: Tensor, share: Share) -> None:
        for name in () if self.camera_jaccard else ("k1", "k2"):
            check_count(f"pseudo_labels.{name}", getattr(self, name), share.total)
        check_count("pseudo_labels.agreement_k", self.agreement_k, share.total - 1)
        check_features(features)
        if len(part_features) != len(features):
            raise ValueError(
                f"got features of {len(features)} images and part features of "
                f"{len(part_features)}; give both of the same images"
            )
        for part in part_features.unbind(2):
            check_features(part, "part_features")

    def _search(self, features: Tensor, k: int, share: Share) -> Tensor:
        return search(
            features, k, share, backend=self.backend, index=self.index, probes=self.probes
        )

    def _cluster(
        self,
        features: Tensor,
        neighbors: Tensor,
        cameras: Tensor | None,
        share: Share,
        stages: Stages,
    ) -> Tensor:
        """Clusters all images; every rank does the last, cheap step on the whole sparse graph."""
        with stages("jaccard"):
            rows = self._jaccard(features, neighbors, cameras, share)
            distance = share.gather_sparse(rows)
        with stages("dbscan"):
            return F.dbscan(distance, eps=self.eps, min_samples=self.min_samples)

    def _jaccard(
        self, features: Tensor, neighbors: Tensor, cameras: Tensor | None, share: Share
    ) -> csr_matrix:
        """Computes this rank's rows of the distance by which images are clustered, (n, N)."""
        if self.camera_jaccard and cameras is not None:
            return camera_jaccard_rows(
                features,
                cameras,
                share,
                k1=(self.k1_intra, self.k1_inter),
                k2=(self.k2_intra, self.k2_inter),
                backend=self.backend,
                max_distance=self.eps,
            )
        return jaccard_rows(
            features,
            share.gather(neighbors.int()),
            share,
            k1=self.k1,
            k2=self.k2,
            max_distance=self.eps,
        )

    def _agree(
        self, neighbors: Tensor, part_features: Tensor, share: Share, stages: Stages
    ) -> Tensor:
        """Scores all images, (N, P); each rank its own."""
        k, parts, scores = self.agreement_k, part_features.unbind(2), []
        with stages("agreement", len(parts)) as advance:
            for part in parts:
                nearest = self._search(part, k + 1, share)
                scores.append(overlap(neighbors, nearest, k=k, start=share.start))
                advance()
            return share.gather(torch.stack(scores, dim=1))


def _to_gpu(*tensors: Tensor) -> tuple[Tensor, ...]:
    """Moves tensors to this process's GPU, if there is one with thrice the room that they take."""
    size = sum(tensor.nbytes for tensor in tensors)
    if not torch.cuda.is_available() or torch.cuda.mem_get_info()[0] < 3 * size:
        return tensors
    return tuple(tensor.cuda() for tensor in tensors)
