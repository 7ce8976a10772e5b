from __future__ import annotations

import math
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as nnf
from lightning.pytorch import Trainer

from pplr_lightning import PPLRModule
from pplr_lightning.data import TrainBatch
from pplr_lightning.functional import (
    aals_loss,
    camera_contrastive_loss,
    pglr_loss,
    softmax_triplet_loss,
)
from pplr_lightning.pseudo_labels import CameraProxies


@pytest.fixture
def batch():
    torch.manual_seed(0)
    return TrainBatch(
        images=torch.randn(8, 3, 64, 32),
        indices=torch.arange(8),
        targets=torch.tensor([0, 0, 1, 1, 2, 2, 3, 3]),
        agreement=torch.rand(8, 2),
        cameras=torch.zeros(8, dtype=torch.long),
    )


def build(**options):
    torch.manual_seed(0)
    defaults = {"pretrained": False, "num_parts": 2, "norm_batch_size": 8, "max_clusters": 6}
    module = PPLRModule("resnet10t", **{**defaults, **options})
    module.model.reset_classifiers(
        nnf.normalize(torch.randn(4, 512)), nnf.normalize(torch.randn(4, 512, 2), dim=1)
    )
    return module


def camera_proxies():
    """Of 3 clusters under 3 cameras each."""
    return CameraProxies(
        nnf.normalize(torch.randn(9, 512), dim=1),
        nnf.normalize(torch.randn(9, 512, 2), dim=1),
        torch.arange(9) // 3,
        torch.arange(9) % 3,
    )


def losses(module, batch, epoch, data=None):
    """One training step at `epoch`, without a fit around it."""
    trainer = Trainer(accelerator="cpu", logger=False, enable_checkpointing=False)
    trainer.fit_loop.epoch_progress.current.completed = epoch
    trainer.datamodule = data
    module.trainer = trainer
    logged = {}
    module.log_dict = lambda values, **_: logged.update(values)
    loss = module.training_step(batch, 0)
    return loss, logged


def test_camera_loss_is_that_of_the_global_feature_and_the_mean_of_the_parts(batch):
    module = build(camera_weight=0.7)
    batch = batch._replace(cameras=torch.arange(8) % 3)
    proxies = camera_proxies()
    data = SimpleNamespace(pseudo_labels=SimpleNamespace(proxies=proxies))
    without, _ = losses(build(), batch, 0)
    loss, logged = losses(module, batch, 0, data)
    output = module.model(batch.images)
    ids = (batch.targets, batch.cameras)
    rest = (proxies.labels, proxies.cameras)
    whole = camera_contrastive_loss(output.features, *ids, proxies.features, *rest)
    parts = [
        camera_contrastive_loss(
            output.part_features[..., n], *ids, proxies.part_features[..., n], *rest
        )
        for n in range(2)
    ]
    camera = (whole + sum(parts) / 2).item()
    assert camera > 0
    assert logged["train/loss_camera"].item() == pytest.approx(camera, rel=1e-5)
    assert loss.item() == pytest.approx(without.item() + 0.7 * camera, rel=1e-5)
    data.pseudo_labels = SimpleNamespace(proxies=proxies._replace(features=-proxies.features))
    assert losses(module, batch, 0, data)[0].item() != pytest.approx(loss.item())  # a new epoch's


def expected(module, batch, *, beta, aals):
    output = module.model(batch.images)
    parts = [
        aals_loss(output.part_logits[..., n], batch.targets, batch.agreement[:, n])
        if aals
        else nnf.cross_entropy(output.part_logits[..., n], batch.targets, label_smoothing=0.1)
        for n in range(2)
    ]
    pglr = pglr_loss(output.logits, output.part_logits, batch.targets, batch.agreement, beta=beta)
    triplet = softmax_triplet_loss(output.features, batch.targets)
    return pglr, sum(parts) / 2, triplet


@pytest.mark.parametrize(
    ("options", "epoch", "beta", "aals"),
    [
        ({}, 5, 0.5, True),
        ({}, 4, 0.5, False),  # AALS starts with epoch 5
        ({"aals": False}, 9, 0.5, False),
        ({"pglr": False}, 9, 1.0, True),
        ({"aals": False, "pglr": False}, 9, 1.0, False),  # the paper's baseline
        ({"beta": 0.2}, 9, 0.2, True),
    ],
)
def test_loss_is_the_sum_of_its_parts(batch, options, epoch, beta, aals):
    module = build(**options)
    loss, logged = losses(module, batch, epoch)
    pglr, parts, triplet = expected(module, batch, beta=beta, aals=aals)
    assert loss.item() == pytest.approx((pglr + parts + triplet).item(), rel=1e-5)
    assert logged["train/loss_pglr"].item() == pytest.approx(pglr.item(), rel=1e-5)
    assert logged["train/loss_parts"].item() == pytest.approx(parts.item(), rel=1e-5)
    assert logged["train/loss_triplet"].item() == pytest.approx(triplet.item(), rel=1e-5)
    assert logged["train/loss"].item() == pytest.approx(loss.item())


def test_losses_under_autocast_are_those_of_the_outputs_in_float32(batch):
    """Cosines over a temperature of 0.07 would be off by 3e-2 in bfloat16."""
    module = build(camera_weight=1.0)
    batch = batch._replace(cameras=torch.arange(8) % 3)
    proxies = camera_proxies()
    data = SimpleNamespace(pseudo_labels=SimpleNamespace(proxies=proxies))
    output = module.model(batch.images)
    module.model.forward = lambda images: output
    expected, _ = losses(module, batch, 5, data)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found, _ = losses(module, batch, 5, data)
    assert found.dtype == torch.float32
    assert torch.equal(found, expected)


def test_every_trainable_parameter_learns(batch):
    module = build()
    losses(module, batch, 5)[0].backward()
    for name, parameter in module.named_parameters():
        assert (parameter.grad is not None) == parameter.requires_grad, name


def test_rows_without_a_cluster_get_no_gradient(batch):
    module = build()
    losses(module, batch, 5)[0].backward()
    gradient = module.model.head.classifier.weight.grad
    assert (gradient[:4].abs().sum(1) > 0).all()
    assert (gradient[4:] == 0).all()


@pytest.mark.parametrize("name", ["beta", "label_smoothing"])
@pytest.mark.parametrize("value", [-0.1, 1.5])
def test_bad_options(name, value):
    with pytest.raises(ValueError, match=rf"{name}={value}: must lie in \[0, 1\]"):
        build(**{name: value})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"camera_weight": -1.0}, "camera_weight=-1.0: must be finite and not negative"),
        ({"camera_weight": math.nan}, "camera_weight=nan"),
        ({"aals_start_epoch": -1}, "aals_start_epoch=-1: must not be negative"),
        ({"max_clusters": 0}, "max_clusters=0: must be at least 1"),
    ],
)
def test_options_out_of_range(options, message):
    with pytest.raises(ValueError, match=message):
        build(**options)


def test_checkpoints_hold_plain_values_and_rebuild_the_module(tmp_path):
    module = build(beta=0.3)
    trainer = Trainer(accelerator="cpu", logger=False, enable_checkpointing=False)
    trainer.strategy.connect(module)
    path = tmp_path / "module.ckpt"
    trainer.save_checkpoint(path)
    loaded = PPLRModule.load_from_checkpoint(path, weights_only=True)
    assert loaded.beta == 0.3
    images = torch.randn(2, 3, 64, 32)
    assert torch.equal(loaded.eval()(images), module.eval()(images))
    assert loaded.model(images).logits.shape == (2, 4)
