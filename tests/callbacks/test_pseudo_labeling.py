from __future__ import annotations

import pytest
import torch
from lightning.pytorch import Trainer
from lightning.pytorch.demos.boring_classes import BoringModel
from lightning.pytorch.utilities.exceptions import MisconfigurationException

from pplr_lightning import PPLRDataModule, PPLRModule, PseudoLabeling
from pplr_lightning.data import Market1501
from pplr_lightning.extraction import extract_features


@pytest.fixture
def data(drawn):
    data = PPLRDataModule(
        Market1501(drawn), image_size=(64, 32), batch_size=16, iterations=2, num_workers=0
    )
    data.setup("fit")
    return data


def test_generate_works_without_a_trainer(data):
    torch.manual_seed(0)
    module = PPLRModule("resnet10t", pretrained=False)
    labeling = PseudoLabeling(k1=6, k2=2, agreement_k=4, eps=0.8, min_samples=2)
    labels = labeling.generate(module.model, data.labeling_dataloader())
    expected = labeling.label(*extract_features(module.model, data.labeling_dataloader()))
    assert labels.proxies is None
    assert all(torch.equal(a, b) for a, b in zip(labels[:4], expected[:4], strict=True))
    assert len(labels.labels) == len(data.train_samples)


class Recorder(PPLRModule):
    """Keeps what each batch was trained with."""

    def on_train_start(self):
        self.seen = []

    def training_step(self, batch, batch_idx):
        labels = self.trainer.datamodule.pseudo_labels
        fresh = torch.equal(batch.targets, labels.labels[batch.indices])
        rows = self.model.head.classifier.num_clusters
        self.seen.append((self.current_epoch, id(labels), fresh and rows == labels.num_clusters))
        return super().training_step(batch, batch_idx)


@pytest.mark.parametrize("num_workers", [0, 2])
def test_labels_are_fresh_before_the_first_batch_of_every_epoch(data, num_workers):
    data.num_workers = num_workers
    module = Recorder("resnet10t", pretrained=False, norm_batch_size=8, max_clusters=60)
    labeling = PseudoLabeling(k1=6, k2=2, agreement_k=4, eps=0.6, min_samples=2)
    trainer = Trainer(
        max_epochs=3,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[labeling],
        limit_val_batches=0,
    )
    trainer.fit(module, datamodule=data)
    assert [epoch for epoch, _, _ in module.seen] == [0, 0, 1, 1, 2, 2]
    assert all(fresh for _, _, fresh in module.seen)
    assert {"labels/clusters", "labels/outliers", "labels/agreement_mean"} <= set(
        trainer.callback_metrics
    )
    assert {"labels/ari", "labels/precision", "labels/recall"} <= set(trainer.callback_metrics)


def fit(labeling, data, module=None):
    module = module or PPLRModule("resnet10t", pretrained=False, norm_batch_size=8)
    Trainer(
        max_epochs=1,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        callbacks=[labeling],
    ).fit(module, datamodule=data)


def test_more_neighbours_than_images(data):
    with pytest.raises(ValueError, match=r"images, but the search needs 500 .*k1=500"):
        fit(PseudoLabeling(k1=500), data)


def test_cameras_that_are_not_known(data):
    train = [sample._replace(camera_id=-1) for sample in data.splits.train]
    data.splits = data.splits._replace(train=train)
    module = PPLRModule("resnet10t", pretrained=False, norm_batch_size=8, camera_weight=0.5)
    with pytest.raises(ValueError, match=r"camera_weight is above 0, but all .* give the data set"):
        fit(PseudoLabeling(k1=6, k2=2, agreement_k=4), data, module)


@pytest.mark.parametrize(
    ("cameras", "message"),
    [
        ([-1], r"camera_jaccard: cameras must be known, .* got -1 for (\d+) of \1 images.*or set"),
        (
            [2, -1],
            "first image 1; give every image its camera, or set pseudo_labels.camera_jaccard",
        ),
        (
            [2],
            r"must be two or more, got \[2\] for all .* set pseudo_labels.camera_jaccard to false",
        ),
    ],
)
def test_camera_jaccard_without_cameras_stops_before_work(data, monkeypatch, cameras, message):
    train = [
        sample._replace(camera_id=cameras[index % len(cameras)])
        for index, sample in enumerate(data.splits.train)
    ]
    data.splits = data.splits._replace(train=train)
    labeling = PseudoLabeling(k1=6, k2=2, agreement_k=4, camera_jaccard=True)
    monkeypatch.setattr(labeling, "generate", None)
    with pytest.raises(ValueError, match=message):
        fit(labeling, data)


def test_camera_jaccard_trains_without_proxies(data):
    labeling = PseudoLabeling(
        k1_intra=2, k1_inter=4, agreement_k=4, eps=0.6, min_samples=2, camera_jaccard=True
    )
    fit(labeling, data)
    assert data.pseudo_labels.num_clusters > 1
    assert data.pseudo_labels.proxies is None


def test_more_neighbours_than_images_for_the_agreement(data):
    with pytest.raises(ValueError, match=r"needs 501 neighbours: lower pseudo_labels.agreement_k"):
        fit(PseudoLabeling(k1=600, agreement_k=500, camera_jaccard=True), data)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_faiss_gpu_without_a_gpu_stops_before_training(data):
    with pytest.raises(ValueError, match=r"faiss-gpu.*no GPU"):
        fit(PseudoLabeling(k1=6, agreement_k=4, backend="faiss-gpu"), data)


def test_wrong_partners(data):
    with pytest.raises(MisconfigurationException, match="PPLRModule"):
        fit(PseudoLabeling(k1=6, agreement_k=4), data, BoringModel())
    trainer = Trainer(
        max_epochs=1,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        callbacks=[PseudoLabeling()],
    )
    with pytest.raises(MisconfigurationException, match="datamodule=PPLRDataModule"):
        trainer.fit(BoringModel())
