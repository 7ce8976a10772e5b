from __future__ import annotations

import builtins

import pytest
import torch

from pplr_lightning import SimCLRModule
from pplr_lightning.data import TrainBatch
from pplr_lightning.networks import PartNetwork

pytest.importorskip("pytorch_metric_learning")


@pytest.fixture
def module():
    torch.manual_seed(0)
    module = SimCLRModule(
        PartNetwork("resnet10t", weights=None, norm_batch_size=8), temperature=0.5
    )
    module.log = lambda *_, **__: None
    module.trainer = type("OneProcess", (), {"world_size": 1})()
    return module


def step(module, images, targets):
    return module.training_step(TrainBatch(images, targets, targets, targets, {}), 0)


def test_loss_is_nt_xent_of_each_branch(module):
    images = torch.randn(8, 3, 64, 32)
    targets = torch.arange(4).repeat_interleave(2)
    output = module.network(images)
    branches = [output.features, *output.part_features.unbind(2)]
    values = []
    for branch in branches:
        views = torch.nn.functional.normalize(module.projector(branch), dim=1)
        similarity = (views @ views.T / 0.5).fill_diagonal_(-torch.inf)
        partner = torch.arange(8) ^ 1  # the other view of the pair
        values.append(torch.nn.functional.cross_entropy(similarity, partner))
    expected = torch.stack(values).mean()
    assert step(module, images, targets).item() == pytest.approx(expected.item(), rel=1e-4)


def test_every_trainable_parameter_learns(module):
    step(module, torch.randn(8, 3, 64, 32), torch.arange(4).repeat_interleave(2)).backward()
    for name, parameter in module.named_parameters():
        assert (parameter.grad is not None) == parameter.requires_grad, name


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"temperature": 0.0}, "temperature=0.0: must be finite and above 0"),
        ({"temperature": float("inf")}, "temperature=inf"),
        ({"projection_size": 0}, "model.projection_size must be at least 1, got 0"),
        ({"projection_size": 10**19}, "model.projection_size must be at most 65,536, got 1"),
    ],
)
def test_bad_options(options, message):
    with pytest.raises(ValueError, match=message):
        SimCLRModule(PartNetwork("resnet10t", weights=None), **options)


def test_missing_extra_is_named(monkeypatch):
    real = builtins.__import__

    def refuse(name, *args, **kwargs):
        if name.startswith("pytorch_metric_learning"):
            raise ImportError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", refuse)
    with pytest.raises(ImportError, match=r"pip install pplr-lightning\[simclr\]"):
        SimCLRModule(PartNetwork("resnet10t", weights=None))
