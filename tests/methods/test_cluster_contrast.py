from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from pplr_lightning.data import TrainBatch
from pplr_lightning.labelers import Consensus, Space
from pplr_lightning.methods import ClusterContrastModule, ReIDModule, SimCLRModule
from pplr_lightning.networks import PartOutput

from ..test_resume import same
from ..tiny import save
from .small_runs import (
    REFERENCE,
    OneProcess,
    SaveAfterStep,
    alone,
    fit,
    network,
    options,
    read,
    train_as_one,
)


def build(**options):
    torch.manual_seed(0)
    return ClusterContrastModule(network(), **options)


@pytest.mark.parametrize(
    ("name", "rule"),
    [
        ("cluster_memory", "every"),
        ("cluster_memory_m02", "every"),
        ("cluster_memory_hard", "hardest"),
    ],
)
def test_steps_are_those_of_the_authors(name, rule, monkeypatch):
    """Loss, gradient and memory over four steps, from features to rows."""
    with np.load(REFERENCE / f"{name}.npz") as file:
        arrays = {key: torch.from_numpy(file[key]) for key in file.files}
    module = build(
        temperature=float(arrays["temperature"]),
        momentum=float(arrays["momentum"]),
        update=rule,
    ).double()
    module.trainer = OneProcess()
    monkeypatch.setattr(module, "log_dict", lambda *_, **__: None)
    module.memory.reset(arrays["memory_start"])
    for step in range(4):
        raw = arrays["raw"][step].requires_grad_()
        monkeypatch.setattr(
            module.network,
            "forward",
            lambda images, raw=raw: PartOutput(raw, raw[..., None][..., :0]),
        )
        targets = arrays["targets"][step]
        batch = TrainBatch(raw, targets, targets, targets, {})
        loss = module.training_step(batch, step)
        loss.backward()
        module.end_step(batch)
        exact = {"rtol": 1e-12, "atol": 1e-12}
        torch.testing.assert_close(loss.detach(), arrays["loss"][step], **exact)
        torch.testing.assert_close(raw.grad, arrays["grad_raw"][step], **exact)
        torch.testing.assert_close(module.memory.rows, arrays["memory_after"][step], **exact)


@pytest.mark.parametrize("epoch", ["first", "later"])
def test_steps_on_refined_labels_are_those_of_the_authors(epoch, monkeypatch):
    """RLCC's: in the first epoch on classes, later on a mean of these and of soft labels."""
    arrays = read("rlcc_memory")
    scalars = {"temperature": float(arrays["temp"]), "momentum": float(arrays["momentum"])}
    module = alone(build(floor=1e-6, **scalars))
    module.memory.reset(arrays["memory"])
    rows, targets = arrays["features"].requires_grad_(), arrays["targets"]
    monkeypatch.setattr(
        module.network, "forward", lambda images: PartOutput(images, images[..., None][..., :0])
    )
    alpha, soft = arrays["alpha"], arrays["soft_labels"][arrays["indices"]]
    soft_labels = alpha * F.one_hot(targets, soft.shape[1]) + (1 - alpha) * soft
    columns = {} if epoch == "first" else {"soft_labels": soft_labels}
    batch = TrainBatch(rows, targets, targets, targets, columns)
    loss = module.training_step(batch, 0)
    loss.backward()
    module.end_step(batch)
    exact = {"rtol": 1e-12, "atol": 1e-12}
    torch.testing.assert_close(loss.detach(), arrays[f"loss_{epoch}"], **exact)
    torch.testing.assert_close(rows.grad, arrays[f"grad_{epoch}"], **exact)
    torch.testing.assert_close(module.memory.rows, arrays[f"memory_after_{epoch}"], **exact)


def test_an_epoch_begins_with_the_means_of_its_classes():
    features = F.normalize(torch.randn(12, 16), dim=1)
    classes = torch.tensor([0, 0, 1, -1, 2, 2, 1, 0, -1, 2, 1, 0])
    module = build()
    assert module.begin_epoch(Space.of(features), classes) == {}
    mean = F.normalize(features[classes == 1].mean(0), dim=0)
    torch.testing.assert_close(module.memory.rows[1], mean)


def test_every_trainable_parameter_learns():
    module = build()
    module.trainer = OneProcess()
    module.log_dict = lambda *_, **__: None
    module.memory.reset(F.normalize(torch.randn(4, module.network.num_features), dim=1))
    targets = torch.arange(4).repeat_interleave(2)
    batch = TrainBatch(torch.randn(8, 3, 64, 32), targets, targets, targets, {})
    module.training_step(batch, 0).backward()
    for name, parameter in module.named_parameters():
        assert (parameter.grad is not None) == parameter.requires_grad, name


def test_is_built_again_from_its_checkpoint(tmp_path):
    module = build(temperature=0.07)
    module.memory.reset(torch.eye(3))
    found = ReIDModule.load_from_checkpoint(save(module, tmp_path / "cc.ckpt"))
    assert isinstance(found, ClusterContrastModule)
    assert found.temperature == 0.07
    assert torch.equal(found.memory.rows, torch.eye(3))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"temperature": 0.0}, "temperature=0.0: must be finite and above 0"),
        ({"momentum": 1.0}, "momentum=1.0"),
        ({"floor": 1.0}, "floor=1.0"),
        ({"update": "first"}, "rule='first'"),
    ],
)
def test_bad_options(options, message):
    with pytest.raises(ValueError, match=message):
        build(**options)


def test_a_network_with_parts():
    with pytest.raises(
        ValueError, match=r"network.num_parts=2: .* the global feature alone; use 0"
    ):
        ClusterContrastModule(network(num_parts=2))


def train(drawn, *callbacks, ckpt_path=None):
    options = {"refinement": Consensus(), "ckpt_path": ckpt_path}
    return fit(build(), drawn, *callbacks, **options)


def test_goes_on_in_mid_epoch_with_the_very_memory(drawn, tmp_path):
    """A checkpoint of a callback has the memory after the step, and what labels are refined by."""
    whole = train(drawn, SaveAfterStep(tmp_path / "middle.ckpt"))
    again = train(drawn, ckpt_path=tmp_path / "middle.ckpt")
    assert same(whole.state_dict(), again.state_dict())


def test_refined_labels_need_losses_that_take_them(drawn):
    with pytest.raises(ValueError, match="the losses of SimCLRModule do not take; leave it out"):
        fit(SimCLRModule(network()), drawn, refinement=Consensus())


@pytest.mark.parametrize("words", [(), ("--pseudo_labels.refinement=Consensus",)])
def test_two_processes_train_as_one(drawn, run, run_several, tmp_path, words):
    words = [*options(drawn, tmp_path), *words]
    train_as_one(run, run_several, tmp_path, words, "cluster_contrast", "train/loss")
