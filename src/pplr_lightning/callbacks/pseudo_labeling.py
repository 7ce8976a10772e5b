"""New labels at the start of every epoch: extraction, `LabelStage`, hand-over and report."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from typing import cast

import torch
import torch.distributed as dist
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch import Tensor

from pplr_lightning.callbacks.compilation import compile_before_work
from pplr_lightning.callbacks.progress import show_stage, track
from pplr_lightning.clusters import number_identities
from pplr_lightning.data import EvalBatch, PPLRDataModule
from pplr_lightning.distributed import log_own, new_patient_group
from pplr_lightning.extraction import extract_features
from pplr_lightning.functional.engines import choose_engine
from pplr_lightning.functional.sharding import Share
from pplr_lightning.label_quality import label_statistics
from pplr_lightning.label_stage import LabelStage
from pplr_lightning.models import PartModel
from pplr_lightning.pseudo_labels import PseudoLabels
from pplr_lightning.retrieval_module import RetrievalModule
from pplr_lightning.stages import Stages


class PseudoLabeling(LabelStage, Callback):
    """Clusters the training images and hands the labels to data and classifiers every epoch.

    The options are those of `LabelStage`, which labels without a Trainer.

    Attributes:
        stages: The clock of the last label stage.
        report: What was logged of it, by name (`labels/...`, `time/...`).
    """

    stages: Stages
    report: dict[str, float]
    _group: dist.ProcessGroup | None = None

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Checks what can be known before any work.

        Raises:
            MisconfigurationException: The data module or the module is not of this library.
            ValueError: There are fewer images than neighbours, or identities or cameras are wanted
                of images that have none, or FAISS on the GPU where there is no GPU.
        """
        if stage != "fit":
            return
        data = _data_of(trainer)
        if not isinstance(pl_module, RetrievalModule):
            raise MisconfigurationException("PseudoLabeling labels for a PPLRModule")
        images = len(data.train_samples)
        if images < self.num_neighbors:
            jaccard = "" if self.camera_jaccard else f"k1={self.k1}, k2={self.k2} or "
            raise ValueError(
                f"{images} training images, but the search needs {self.num_neighbors} neighbours: "
                f"lower pseudo_labels.{jaccard}agreement_k={self.agreement_k}"
            )
        if self.source == "clusters":
            self.check_cameras(_camera_ids(data), images)
        elif number_identities(_person_ids(data)).max() < 1:
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
        self.stages, self.report = Stages(), {}

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Lets go of the ranks, which another run may not have."""
        self._group = None

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Labels the images with the model as it stands, before the epoch's first batch."""
        data = _data_of(trainer)
        module = cast(RetrievalModule, pl_module)
        model = module.model
        batches = track(trainer, data.labeling_dataloader(), "Extracting features")
        self.stages = Stages(partial(show_stage, trainer))
        with trainer.precision_plugin.forward_context():
            labels = self.generate(
                model,
                batches,
                person_ids=_person_ids(data),
                cameras=_camera_ids(data),
                proxies=module.uses_cameras,
                stages=self.stages,
            )
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
        proxies: bool = True,
        stages: Stages | None = None,
    ) -> PseudoLabels:
        """Labels the images of `batches`, with or without a Trainer.

        Args:
            model: Embeds the images.
            batches: This rank's share of the images, all of them where there is one process.
            person_ids: True identities (N,), read only where `source` is `identities`.
            cameras: Camera of each of the N images, for `camera_jaccard` and for proxies.
            proxies: Average each cluster in each of its cameras, if cameras are given.
            stages: Measures `extraction` and what `label` measures.

        Returns:
            The same labels on every rank.

        Raises:
            ValueError: Fewer than two clusters were found, or `camera_jaccard` lacks cameras.
        """
        stages = stages or Stages()
        with stages("extraction"):
            features, part_features = extract_features(model, batches)
        return self.label(
            features,
            part_features,
            max_clusters=model.max_clusters,
            person_ids=person_ids,
            cameras=cameras,
            proxies=proxies,
            share=Share(len(features), self._group),
            stages=stages,
        )

    def _report(self, module: LightningModule, labels: PseudoLabels, person_ids: Tensor) -> None:
        """Logs the epoch's `labels/...` values, and the seconds of its stages as `time/...`."""
        values = label_statistics(labels, person_ids)
        self.report = {f"labels/{name}": v for name, v in values.items()}  # the same on every rank
        self.report |= {f"time/{name}": v for name, v in self.stages.seconds.items()}
        log_own(module, self.report)


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
