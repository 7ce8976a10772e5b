"""New labels at the start of every epoch; the heart is `PseudoLabeling.label`."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal, cast

import torch
import torch.distributed as dist
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_info
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch import Tensor

from pplr_lightning import functional as F
from pplr_lightning.callbacks.compilation import compile_before_work
from pplr_lightning.callbacks.progress import track
from pplr_lightning.clusters import fit_rows, mean_features, number_identities
from pplr_lightning.data import EvalBatch, PPLRDataModule
from pplr_lightning.distributed import new_patient_group
from pplr_lightning.extraction import extract_features
from pplr_lightning.functional.agreement import overlap
from pplr_lightning.functional.checks import check_count, check_features
from pplr_lightning.functional.clustering import camera_pairs
from pplr_lightning.functional.engines import choose_engine
from pplr_lightning.functional.jaccard import jaccard_rows
from pplr_lightning.functional.neighbors import is_approximate, recall, search
from pplr_lightning.functional.sharding import Share
from pplr_lightning.metrics import label_quality
from pplr_lightning.models import PartModel
from pplr_lightning.pseudo_labels import CameraProxies, PseudoLabels
from pplr_lightning.retrieval_module import RetrievalModule


class PseudoLabeling(Callback):
    """Clusters the training images and hands the labels to data and classifiers every epoch.

    Each rank searches and scores its share of the images; neighbour lists and the sparse rows of
    the Jaccard distance are gathered, so that all ranks find the same labels. Fewer than two
    clusters stop the run: there is nothing to tell apart. Of more clusters than the model has
    classifier rows, the largest are trained on, with a warning.

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
        source: Literal["clusters", "identities"] = "clusters",
    ) -> None:
        for name, count in (
            ("k1", k1),
            ("k2", k2),
            ("min_samples", min_samples),
            ("agreement_k", agreement_k),
            ("probes", probes),
        ):
            if count < 1:
                raise ValueError(f"pseudo_labels.{name}={count}: must be at least 1")
        if not 0 < eps <= 1:
            raise ValueError(f"pseudo_labels.eps={eps}: a Jaccard distance lies in (0, 1]")
        self.k1 = k1
        self.k2 = k2
        self.eps = eps
        self.min_samples = min_samples
        self.agreement_k = agreement_k
        self.backend = backend
        self.index = index
        self.probes = probes
        self.source = source
        self._group: dist.ProcessGroup | None = None

    @property
    def num_neighbors(self) -> int:
        """Columns of the one search that serves Jaccard distance and agreement."""
        return max(self.k1, self.k2, self.agreement_k + 1)

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Checks what can be known before any work.

        Raises:
            MisconfigurationException: The data module or the module is not of this library.
            ValueError: There are fewer images than neighbours, or identities are wanted of images
                that have none, or FAISS on the GPU where there is no GPU.
        """
        if stage != "fit":
            return
        data = _data_of(trainer)
        if not isinstance(pl_module, RetrievalModule):
            raise MisconfigurationException("PseudoLabeling labels for a PPLRModule")
        images = len(data.train_samples)
        if images < self.num_neighbors:
            raise ValueError(
                f"{images} training images, but the search needs {self.num_neighbors} neighbours: "
                f"lower pseudo_labels.k1={self.k1}, k2={self.k2} or agreement_k={self.agreement_k}"
            )
        if self.source == "identities" and number_identities(_person_ids(data)).max() < 1:
            raise ValueError(
                "pseudo_labels.source=identities needs a data set with person ids: use clusters"
            )
        if pl_module.uses_cameras and len(set(_camera_ids(data).tolist())) < 2:
            raise ValueError(
                "model.camera_weight is above 0, but all training images are of one camera, or of "
                "none that is known: give the data set camera ids, or set camera_weight to 0"
            )
        choose_engine(self.backend, self.index)
        compile_before_work()
        self._group = new_patient_group()

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Lets go of the ranks, which another run may not have."""
        self._group = None

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Labels the images with the model as it stands, before the epoch's first batch."""
        data = _data_of(trainer)
        model = cast(RetrievalModule, pl_module).model
        cameras = _camera_ids(data) if cast(RetrievalModule, pl_module).uses_cameras else None
        batches = track(trainer, data.labeling_dataloader(), "Extracting features")
        with trainer.precision_plugin.forward_context():
            labels = self.generate(model, batches, person_ids=_person_ids(data), cameras=cameras)
        data.pseudo_labels = labels
        model.reset_classifiers(labels.centroids, labels.part_centroids)
        self._report(pl_module, labels, _person_ids(data))

    def generate(
        self,
        model: PartModel,
        batches: Iterable[EvalBatch],
        *,
        person_ids: Tensor | None = None,
        cameras: Tensor | None = None,
    ) -> PseudoLabels:
        """Labels the images of `batches`, with or without a Trainer.

        Args:
            model: Embeds the images.
            batches: This rank's share of the images, all of them where there is one process.
            person_ids: True identities (N,), read only where `source` is `identities`.
            cameras: Camera of each of the N images, if proxies are wanted.

        Returns:
            The same labels on every rank.

        Raises:
            ValueError: Fewer than two clusters were found.
        """
        features, part_features = extract_features(model, batches)
        return self.label(
            features,
            part_features,
            max_clusters=model.max_clusters,
            person_ids=person_ids,
            cameras=cameras,
            share=Share(len(features), self._group),
        )

    def label(
        self,
        features: Tensor,
        part_features: Tensor,
        *,
        max_clusters: int | None = None,
        person_ids: Tensor | None = None,
        cameras: Tensor | None = None,
        share: Share | None = None,
    ) -> PseudoLabels:
        """Turns L2-normalised features (N, D) and part features (N, D, P) into labels.

        Args:
            features: On the CPU; this rank's rows where several share the work.
            part_features: Likewise.
            max_clusters: Keep the largest of more clusters than this.
            person_ids: True identities (N,), read only where `source` is `identities`.
            cameras: Camera of each of the N images, if proxies are wanted.
            share: This rank's rows among all; None where it has all.

        Returns:
            The labels of all images, the same on every rank.

        Raises:
            ValueError: Fewer than two clusters were found, there are fewer images than neighbours,
                or a feature is not finite or not normalised.
            RuntimeError: Another rank had to stop.
        """
        with share or Share(len(features)) as share:
            for name in ("k1", "k2"):
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
            k = self.agreement_k
            neighbors = self._search(features, self.num_neighbors, share)
            if is_approximate(self.index, share):
                found = recall(features, neighbors, share, backend=self.backend)
                rank_zero_info(f"approximate neighbours: a recall of {found:.4f} on a sample")
            if self.source == "identities" and person_ids is not None:
                labels = number_identities(person_ids)
            else:
                labels = self._cluster(features, neighbors, share)
            labels = fit_rows(labels, max_clusters)
            parts = part_features.unbind(2)
            agreement = [
                overlap(neighbors, self._search(part, k + 1, share), k=k, start=share.start)
                for part in parts
            ]
            centroids, part_centroids = mean_features(features, part_features, labels, share)
            proxies = None
            if cameras is not None:
                pairs, clusters, seen_by = camera_pairs(labels, cameras)
                means = mean_features(features, part_features, pairs, share)
                proxies = CameraProxies(*means, clusters, seen_by)
            return PseudoLabels(
                labels=labels,
                agreement=share.gather(torch.stack(agreement, dim=1)),
                centroids=centroids,
                part_centroids=part_centroids,
                proxies=proxies,
            )

    def _search(self, features: Tensor, k: int, share: Share) -> Tensor:
        return search(
            features, k, share, backend=self.backend, index=self.index, probes=self.probes
        )

    def _cluster(self, features: Tensor, neighbors: Tensor, share: Share) -> Tensor:
        """Clusters all images; every rank does the last, cheap step on the whole sparse graph."""
        distance = jaccard_rows(
            features,
            share.gather(neighbors.int()),
            share,
            k1=self.k1,
            k2=self.k2,
            max_distance=self.eps,
        )
        return F.dbscan(share.gather_sparse(distance), eps=self.eps, min_samples=self.min_samples)

    def _report(self, module: LightningModule, labels: PseudoLabels, person_ids: Tensor) -> None:
        """Logs the epoch's `labels/...` values and prints a line."""
        values = {
            "clusters": float(labels.num_clusters),
            "outliers": labels.outlier_share,
            "agreement_mean": labels.agreement.mean().item(),
        }
        if (person_ids >= 0).all():  # known: for analysis only
            values |= label_quality(labels.labels, person_ids)._asdict()
        # the same on every rank
        module.log_dict({f"labels/{name}": v for name, v in values.items()}, sync_dist=True)
        rest = " ".join(
            f"{name} {value:.3f}" for name, value in values.items() if name != "clusters"
        )
        rank_zero_info(
            f"epoch {module.current_epoch}: {labels.num_clusters} clusters of "
            f"{len(labels.labels)} images; {rest}"
        )


def _data_of(trainer: Trainer) -> PPLRDataModule:
    data = getattr(trainer, "datamodule", None)
    if not isinstance(data, PPLRDataModule):
        raise MisconfigurationException(
            "PseudoLabeling hands its labels to a PPLRDataModule: call "
            "trainer.fit(module, datamodule=PPLRDataModule(...))"
        )
    return data


def _camera_ids(data: PPLRDataModule) -> Tensor:
    return torch.tensor([sample.camera_id for sample in data.train_samples])


def _person_ids(data: PPLRDataModule) -> Tensor:
    return torch.tensor([sample.person_id for sample in data.train_samples])
