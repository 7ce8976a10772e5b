from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from lightning.pytorch import Callback

from pplr_lightning.data import TrainBatch
from pplr_lightning.evaluation.extraction import extract_features
from pplr_lightning.labelers import SelfPaced, Space
from pplr_lightning.methods import ReIDModule, SpCLModule
from pplr_lightning.networks import PartOutput

from ..test_resume import same
from ..tiny import save
from .small_runs import REFERENCE, SaveAfterStep, alone, fit, network, options, train_as_one


def build(**options):
    torch.manual_seed(0)
    return SpCLModule(network(), **options)


def ready(rows, classes, **options):
    """A module in the midst of an epoch, without a Trainer."""
    module = alone(build(**options))
    module.memory.reset(rows)
    module.memory.classify(classes)
    return module


@pytest.mark.parametrize("name", ["hybrid_memory_spcl", "hybrid_memory_openunreid"])
def test_steps_are_those_of_the_authors(name, monkeypatch):
    """Loss, gradient and memory over four steps, from features to rows."""
    with np.load(REFERENCE / f"{name}.npz") as file:
        arrays = {key: torch.from_numpy(file[key]) for key in file.files}
    _, classes = arrays["labels"].unique(return_inverse=True)  # the authors skip empty numbers
    scalars = {name: float(arrays[name]) for name in ("temperature", "momentum")}
    module = ready(arrays["memory_start"], classes, **scalars).double()
    for step in range(4):
        raw = arrays["raw"][step].requires_grad_()
        output = PartOutput(raw, raw[..., None][..., :0])
        monkeypatch.setattr(module.network, "forward", lambda images, output=output: output)
        images = arrays["indexes"][step]
        batch = TrainBatch(raw, images, classes[images], images, {})
        loss = module.training_step(batch, step)
        loss.backward()
        module.end_step(batch)
        exact = {"rtol": 1e-12, "atol": 1e-12}
        torch.testing.assert_close(loss.detach(), arrays["loss"][step], **exact)
        torch.testing.assert_close(raw.grad, arrays["grad_raw"][step], **exact)
        torch.testing.assert_close(module.memory.rows, arrays["memory_after"][step], **exact)


def test_the_memory_is_filled_once_and_gets_each_epochs_classes():
    features = F.normalize(torch.randn(6, 16), dim=1)
    module, classes = build(), torch.tensor([0, 0, 1, 2, 3, 1])
    assert module.begin_epoch(Space.of(features), classes) == {}
    assert torch.equal(module.memory.rows, features)
    module.begin_epoch(Space.of(features.flip(0)), classes.flip(0))
    assert torch.equal(module.memory.rows, features)
    assert torch.equal(module.memory.classes, classes.flip(0))


def test_every_trainable_parameter_learns():
    classes = torch.tensor([0, 0, 1, 2, 3, 3])
    module = ready(F.normalize(torch.randn(6, build().network.num_features), dim=1), classes)
    images = torch.tensor([0, 1, 2, 3, 4, 5, 0, 1])
    batch = TrainBatch(torch.randn(8, 3, 64, 32), images, classes[images], images, {})
    module.training_step(batch, 0).backward()
    for name, parameter in module.named_parameters():
        assert (parameter.grad is not None) == parameter.requires_grad, name


def test_is_built_again_from_its_checkpoint(tmp_path):
    module = ready(torch.eye(3), torch.tensor([0, 1, 0]), momentum=0.3)
    found = ReIDModule.load_from_checkpoint(save(module, tmp_path / "spcl.ckpt"))
    assert isinstance(found, SpCLModule)
    assert found.memory.momentum == 0.3
    assert torch.equal(found.memory.rows, torch.eye(3))
    assert found.memory.classes.tolist() == [0, 1, 0]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"temperature": 0.0}, "temperature=0.0: must be finite and above 0"),
        ({"momentum": 1.0}, "momentum=1.0"),
    ],
)
def test_bad_options(options, message):
    with pytest.raises(ValueError, match=message):
        build(**options)


def test_a_network_with_parts():
    with pytest.raises(ValueError, match=r"network.num_parts=2: SpCL .* feature alone; use 0"):
        SpCLModule(network(num_parts=2))


class Record(Callback):
    """What each epoch was labelled by, and the images of each batch."""

    def __init__(self):
        self.labelled, self.images, self.thresholds = [], [], []

    def on_train_batch_start(self, trainer, module, batch, batch_idx):
        if batch_idx == 0:
            self.labelled.append(module.memory.rows.clone())
        self.images.append(batch.indices.tolist())
        self.thresholds.append(trainer.callbacks[0].labeler.threshold)


def train(drawn, *callbacks, ckpt_path=None, module=None, **options):
    labeler = SelfPaced(k1=6, k2=2, eps=0.6, gap=0.1, min_samples=2)
    options = {"labeler": labeler, "repeat_images": False, **options}
    return fit(module or build(), drawn, *callbacks, ckpt_path=ckpt_path, **options)


def test_repeated_images_are_refused(drawn):
    with pytest.raises(ValueError, match=r"data.repeat_images=true: .* set it to false"):
        train(drawn, repeat_images=True)


class SaveAtEnd(Callback):
    """Keeps the end of the first epoch, before the second is labelled."""

    def __init__(self, path):
        self.path = path

    def on_train_epoch_end(self, trainer, module):
        if trainer.current_epoch == 0:
            trainer.save_checkpoint(self.path)


@pytest.mark.parametrize("saver", [SaveAfterStep, SaveAtEnd])
def test_goes_on_with_the_very_memory_and_threshold(drawn, tmp_path, saver):
    """From the middle of an epoch and between two: the memory is never extracted again."""
    record, again = Record(), Record()
    whole = train(drawn, saver(tmp_path / "some.ckpt"), record)
    found = train(drawn, again, ckpt_path=tmp_path / "some.ckpt")
    assert same(whole.state_dict(), found.state_dict())
    done = len(record.images) - len(again.images)
    assert again.images == record.images[done:]
    assert again.thresholds == record.thresholds[done:]
    assert record.thresholds[0] is not None


def test_only_the_first_epoch_embeds_the_images(drawn, monkeypatch):
    calls = []

    def counted(*args):
        calls.append(args)
        return extract_features(*args)

    monkeypatch.setattr("pplr_lightning.methods.base.extract_features", counted)
    record = Record()
    module = train(drawn, record)
    assert len(calls) == 1
    start, later = record.labelled
    assert start.shape == later.shape == module.memory.rows.shape
    moved = (start != later).any(dim=1)
    assert set(moved.nonzero().flatten().tolist()) == set(sum(record.images[:3], []))
    classes = module.memory.classes
    assert (torch.bincount(classes) == 1).any()
    assert (torch.bincount(classes) > 1).any()
    train(drawn, module=module)  # a new run begins anew
    assert len(calls) == 2


def test_two_processes_train_as_one(drawn, run, run_several, tmp_path):
    words = [one.replace("cluster_contrast", "spcl") for one in options(drawn, "")]
    words.append("--pseudo_labels.labeler.gap=0.1")
    train_as_one(run, run_several, tmp_path, words, "spcl", "train/loss", rel=1e-6)
