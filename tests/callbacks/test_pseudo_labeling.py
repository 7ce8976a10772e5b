from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from lightning.pytorch import Trainer
from lightning.pytorch.demos.boring_classes import BoringModel
from lightning.pytorch.utilities.exceptions import MisconfigurationException

from pplr_lightning import PPLRDataModule, PPLRModule, PseudoLabeling
from pplr_lightning.callbacks.pseudo_labeling import _alive
from pplr_lightning.callbacks.shared import History
from pplr_lightning.data import Market1501
from pplr_lightning.data.datasets import tracklet_numbers
from pplr_lightning.data.pairs import image_names
from pplr_lightning.evaluation.extraction import extract_features
from pplr_lightning.labelers import DBSCAN, CameraDBSCAN, Consensus, Instances, SelfPaced, Space
from pplr_lightning.methods import ReIDModule, SpCLModule
from pplr_lightning.networks import PartNetwork


@pytest.fixture
def data(drawn):
    data = PPLRDataModule(
        Market1501(drawn), image_size=(64, 32), batch_size=16, iterations=2, num_workers=0
    )
    data.setup("fit")
    return data


def network():
    return PartNetwork("resnet10t", weights=None, norm_batch_size=8)


def dbscan(**options):
    return DBSCAN(**{"k1": 6, "k2": 2, "eps": 0.6, "min_samples": 2, **options})


def test_a_labeler_works_without_a_trainer(data):
    torch.manual_seed(0)
    space = Space.of(*extract_features(network(), data.labeling_dataloader()))
    classes = dbscan(eps=0.8).label(space)
    assert len(classes) == len(data.train_samples)
    assert classes.max() > 0


class Recorder(PPLRModule):
    """Keeps what each batch was trained with."""

    def on_train_start(self):
        self.seen = []

    def training_step(self, batch, batch_idx):
        labels = self.trainer.datamodule.pseudo_labels
        fresh = torch.equal(batch.targets, labels.classes[batch.indices])
        rows = self.classifier.num_clusters
        self.seen.append((self.current_epoch, id(labels), fresh and rows == labels.num_classes))
        return super().training_step(batch, batch_idx)


@pytest.mark.parametrize("num_workers", [0, 2])
def test_labels_are_fresh_before_the_first_batch_of_every_epoch(data, num_workers):
    data.num_workers = num_workers
    module = Recorder(network(), max_clusters=60, agreement_k=4)
    labeling = PseudoLabeling(dbscan())
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


class Plain(ReIDModule):
    """The least that a method is: a loss."""

    def training_step(self, batch, batch_idx):
        return self.network(batch.images).features.square().mean()


def fit(labeling, data, module=None, *, max_epochs=1, ckpt_path=None):
    module = module or PPLRModule(network(), agreement_k=4)
    trainer = Trainer(
        max_epochs=max_epochs,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        callbacks=[labeling],
    )
    trainer.fit(module, datamodule=data, ckpt_path=ckpt_path)
    return trainer


def test_what_was_chosen_is_in_the_history_and_the_checkpoint(data):
    labeling = PseudoLabeling(dbscan(k1="auto", k2="auto"))
    trainer = fit(labeling, data)
    chosen = labeling.labeler.setting
    row = History.of(trainer).rows[-1]
    assert {name: row[f"labels/{name}"] for name in chosen._fields} == chosen._asdict()
    assert labeling.state_dict()["labeler"]["setting"] == tuple(chosen)
    assert trainer.callback_metrics["labels/k1"] == chosen.k1


def test_more_neighbours_than_images(data):
    with pytest.raises(ValueError, match=r"number of images, got labeler.k1=500 for"):
        fit(PseudoLabeling(dbscan(k1=500)), data)


def test_cameras_that_are_not_known(data):
    train = [sample._replace(camera_id=-1) for sample in data.splits.train]
    data.splits = data.splits._replace(train=train)
    module = PPLRModule(network(), agreement_k=4, camera_weight=0.5)
    with pytest.raises(ValueError, match=r"camera_weight is above 0, but all .* give the data set"):
        fit(PseudoLabeling(dbscan()), data, module)


def test_a_labeler_that_cannot_label_stops_before_work(data, monkeypatch):
    train = [sample._replace(camera_id=-1) for sample in data.splits.train]
    data.splits = data.splits._replace(train=train)
    labeler = CameraDBSCAN()
    monkeypatch.setattr(labeler, "label", None)
    with pytest.raises(ValueError, match=r"CameraDBSCAN: cameras must be known"):
        fit(PseudoLabeling(labeler), data)


def test_camera_aware_labels_train_without_proxies(data):
    module = PPLRModule(network(), agreement_k=4)
    fit(PseudoLabeling(CameraDBSCAN(k1_intra=2, k1_inter=4, eps=0.6, min_samples=2)), data, module)
    assert data.pseudo_labels.num_classes > 1
    assert module.proxies is None


def test_more_neighbours_than_images_for_the_agreement(data):
    with pytest.raises(ValueError, match=r"model.agreement_k=500 for"):
        fit(PseudoLabeling(dbscan()), data, PPLRModule(network(), agreement_k=500))


class Counted(DBSCAN):
    """Counts its epochs."""

    epochs = 0

    def label(self, space):
        self.epochs += 1
        return super().label(space)

    def state_dict(self):
        return {"epochs": self.epochs}

    def load_state_dict(self, state_dict):
        self.epochs = state_dict["epochs"]


def test_what_a_labeler_keeps_is_in_the_checkpoint(data, tmp_path):
    counted = Counted(k1=6, k2=2, eps=0.6, min_samples=2)
    trainer = fit(PseudoLabeling(counted), data)
    trainer.save_checkpoint(tmp_path / "one.ckpt")
    again = Counted(k1=6, k2=2, eps=0.6, min_samples=2)
    fit(PseudoLabeling(again), data, max_epochs=2, ckpt_path=tmp_path / "one.ckpt")
    assert (counted.epochs, again.epochs) == (1, 2)


def test_a_labeler_forgets_another_run(data):
    labeling = PseudoLabeling(Counted(k1=6, k2=2, eps=0.6, min_samples=2))
    for _ in range(2):
        fit(labeling, data)
        assert labeling.labeler.epochs == 1


def test_instances_need_no_neighbours_of_a_method_without_columns(data):
    labeling = PseudoLabeling(Instances())
    trainer = fit(labeling, data, Plain(network()))
    assert list(labeling.stages.seconds) == []
    (row,) = History.of(trainer).rows
    assert row["labels/clusters"] == len(data.train_samples)
    assert "labels/agreement_mean" not in row


@pytest.fixture
def tracked(data):
    """The same images, most of them frames of tracklets of the names, the rest alone."""
    numbers = tracklet_numbers(Market1501(data.dataset.root, tracklets="names").load().train)
    train = [
        sample._replace(tracklet_id=number if row % 8 else -1)
        for row, (sample, number) in enumerate(zip(data.splits.train, numbers, strict=True))
    ]
    data.splits = data.splits._replace(train=train)
    return data


def test_frames_of_a_tracklet_get_its_labels(tracked):
    numbers = torch.tensor(tracklet_numbers(tracked.train_samples))
    assert len(numbers.unique()) < 0.7 * len(numbers)

    def alike(values):
        return all(len(values[numbers == number].unique(dim=0)) == 1 for number in numbers.unique())

    fit(PseudoLabeling(dbscan()), tracked)
    labels = tracked.pseudo_labels
    assert alike(labels.classes)
    assert alike(labels.columns["agreement"])
    fit(PseudoLabeling(dbscan(), pool_tracklets=False), tracked)
    assert not alike(tracked.pseudo_labels.columns["agreement"])


def test_a_run_of_tracklets_goes_on_as_if_never_stopped(tracked, tmp_path):
    def run(**options):
        torch.manual_seed(0)
        module = PPLRModule(network(), agreement_k=4)
        trainer = fit(PseudoLabeling(dbscan(), refinement=Consensus()), tracked, module, **options)
        return trainer, module.state_dict(), tracked.pseudo_labels

    _, weights, labels = run(max_epochs=2)
    run(max_epochs=1)[0].save_checkpoint(tmp_path / "one.ckpt")
    _, again, found = run(max_epochs=2, ckpt_path=tmp_path / "one.ckpt")
    assert torch.equal(found.classes, labels.classes)
    assert all(torch.equal(found.columns[name], labels.columns[name]) for name in labels.columns)
    assert "soft_labels" in found.columns
    assert all(
        torch.equal(again[name], value) for name, value in weights.items() if torch.is_tensor(value)
    )


def test_tracklets_are_split_where_frames_differ(tracked):
    """A tracklet of many people falls apart."""
    numbers = tracklet_numbers(tracked.train_samples)
    seen = [[one for one, walk in zip(tracked.splits.train, numbers, strict=True) if walk == w]
            for w in sorted(set(numbers))]  # fmt: skip
    joined = [one for walk in seen for one in walk[: len(walk) // 2 or 1]]
    train = [one._replace(camera_id=1, tracklet_id=0, frame=n) for n, one in enumerate(joined)]
    rest = [one for one in tracked.splits.train if one not in joined]
    tracked.splits = tracked.splits._replace(train=[*train, *rest])
    first = slice(0, len(train))
    labeling = PseudoLabeling(dbscan(min_samples=2), split_tracklets=1.5)
    fit(labeling, tracked)
    assert len(tracked.pseudo_labels.columns["agreement"][first].unique(dim=0)) > 5
    assert "splitting" in labeling.stages.seconds
    with pytest.raises(ValueError, match=r"pseudo_labels.split_tracklets=0.5: must be finite and"):
        PseudoLabeling(split_tracklets=0.5)
    with pytest.raises(ValueError, match=r"and pseudo_labels.refinement compares them with those"):
        PseudoLabeling(split_tracklets=2, refinement=Consensus())


@pytest.fixture
def known(data, tmp_path):
    """Pairs of the images: 0 and 40 are one person, those of 0 and 1 two; 2 is left out."""
    _, names = image_names(data.dataset, data.train_samples)
    rows = (f"{names[0]},{names[40]},1", f"{names[0]},{names[1]},0", f"{names[2]},,")
    path = tmp_path / "pairs.csv"
    path.write_text("\n".join(["path_a,path_b,same", *rows, ""]))
    return path


def test_pairs_are_obeyed(data, known):
    torch.manual_seed(0)  # a random network may find a single class
    options = {"eps": 0.9, "min_samples": 2}
    fit(PseudoLabeling(dbscan(**options)), data)
    before = data.pseudo_labels.classes
    assert before[0] == before[1] >= 0  # that is what there is to correct
    assert before[2] >= 0
    labeling = PseudoLabeling(dbscan(**options), pairs=known)
    fit(labeling, data)
    classes = data.pseudo_labels.classes
    assert classes[0] == classes[40] >= 0
    assert classes[0] != classes[1]
    assert classes[2] == -1
    assert "pairs" in labeling.stages.seconds


def test_pairs_of_frames_hold_for_their_tracklets(tracked, known):
    numbers = torch.tensor(tracklet_numbers(tracked.train_samples))
    assert (numbers == numbers[2]).sum() > 1
    fit(PseudoLabeling(dbscan(eps=0.9), pairs=known), tracked)
    classes = tracked.pseudo_labels.classes
    assert len({*classes[(numbers == numbers[0]) | (numbers == numbers[40])].tolist()}) == 1
    assert classes[0] != classes[1]
    assert classes[2] == -1
    mates = (numbers == numbers[2]).nonzero()[:, 0].tolist()
    assert (classes[[row for row in mates if row != 2]] >= 0).all()


def test_pairs_that_cannot_be_obeyed_stop_before_work(data, known, monkeypatch):
    module = SpCLModule(PartNetwork("resnet10t", weights=None, num_parts=0))
    with pytest.raises(ValueError, match=r"pairs: SpCLModule keeps a row of every image"):
        fit(PseudoLabeling(SelfPaced(k1=6, k2=2), pairs=known), data, module)
    labeling = PseudoLabeling(dbscan(), pairs=known)
    monkeypatch.setattr(labeling.labeler, "label", None)
    known.write_text(known.read_text() + "gone.png,,\n")
    with pytest.raises(ValueError, match=r"pairs.csv, line 5: no training image gone.png"):
        fit(labeling, data)
    known.unlink()
    with pytest.raises(FileNotFoundError, match=r"^pseudo_labels.pairs: .*csv: no such table"):
        fit(labeling, data)


def test_more_neighbours_than_tracklets(tracked):
    images = len(tracked.train_samples)
    with pytest.raises(ValueError, match=r"number of images, got labeler.k1="):
        fit(PseudoLabeling(dbscan(k1=images)), tracked)


def test_a_method_that_keeps_every_image_labels_them_so(tracked):
    tracked.repeat_images = False
    module = SpCLModule(PartNetwork("resnet10t", weights=None, num_parts=0))
    with pytest.raises(ValueError, match=r"SpCLModule keeps a feature of every image.* to false"):
        fit(PseudoLabeling(SelfPaced(k1=6, k2=2)), tracked, module)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_faiss_gpu_without_a_gpu_stops_before_training(data):
    with pytest.raises(ValueError, match=r"faiss-gpu.*no GPU"):
        fit(PseudoLabeling(dbscan(), backend="faiss-gpu"), data)


def test_wrong_partners(data):
    with pytest.raises(MisconfigurationException, match="PPLRModule"):
        fit(PseudoLabeling(dbscan()), data, BoringModel())
    trainer = Trainer(
        max_epochs=1,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        callbacks=[PseudoLabeling()],
    )
    with pytest.raises(MisconfigurationException, match="datamodule=PPLRDataModule"):
        trainer.fit(BoringModel())


@pytest.mark.parametrize("value", [0.0, float("nan"), float("inf")])
@pytest.mark.parametrize("step", [0, 5])
def test_a_network_that_has_diverged_is_called_that(value, step):
    features, parts = torch.ones(4, 3), torch.ones(4, 3, 2)
    parts[2, :, 1] = value
    trainer = SimpleNamespace(global_step=step, current_epoch=3, global_rank=0, ckpt_path="a.ckpt")
    why = (
        "training has diverged: lower .* earlier checkpoint than a.ckpt, which may be damaged"
        if step
        else "weights to start from are broken"
    )
    with pytest.raises(FloatingPointError, match=f"epoch 3: .* of 1 images; .*{why}"):
        _alive(trainer, features, parts)
