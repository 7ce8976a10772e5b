from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from pplr_lightning.data import TrainBatch
from pplr_lightning.functional import margin_triplet_loss
from pplr_lightning.labelers import Identities
from pplr_lightning.methods import PartIdentityModule, ReIDModule
from pplr_lightning.networks import WindowNetwork

from ..test_ddp import column
from ..test_resume import same
from ..tiny import save
from .small_runs import SaveAfterStep, alone, fit, options

PYRAMID = {"windows": "pyramid", "window_pooling": "avg+max", "width": 6, "stripes": 2}


def build(network=None, **options):
    torch.manual_seed(0)
    shape = {"image_size": (64, 32), "norm_batch_size": 8}
    network = WindowNetwork("test_resnet", weights=None, **shape, **(network or {}))
    return PartIdentityModule(network, **{"max_clusters": 12, **options})


def batch_of(images):
    targets = torch.arange(len(images)) % 4
    return TrainBatch(images, targets, targets, targets, {})


def test_a_pyramids_loss_is_that_of_each_window():
    module = alone(build(PYRAMID, hidden=None, dropout=0.0, triplet_margin=1.4))
    batch = batch_of(torch.randn(8, 3, 64, 32))
    parts = module.network(batch.images).part_features
    expected = sum(
        F.cross_entropy(module.classifiers[p](parts[..., p]), batch.targets)
        + margin_triplet_loss(parts[..., p], batch.targets, margin=1.4)
        for p in range(3)
    )
    torch.testing.assert_close(module.training_step(batch, 0), expected)


def test_stripes_share_a_layer_with_one_normalisation():
    module = alone(build(dropout=0.0, hidden=5))
    batch = batch_of(torch.randn(8, 3, 64, 32))
    parts = module.network(batch.images).part_features
    rows = parts.transpose(1, 2) @ module.hidden[0].weight.T  # (8, 6, 5)
    mean, variance = rows.mean((0, 1)), rows.var((0, 1), correction=0)
    rows = ((rows - mean) / (variance + 1e-5).sqrt()).relu()
    expected = sum(
        F.cross_entropy(module.classifiers[p](rows[:, p]), batch.targets) for p in range(6)
    )
    torch.testing.assert_close(module.training_step(batch, 0), expected)


@pytest.mark.parametrize("network", [{}, PYRAMID])
def test_every_trainable_parameter_learns(network):
    module = alone(build(network, triplet_margin=1.4))
    module.training_step(batch_of(torch.randn(8, 3, 64, 32)), 0).backward()
    for name, parameter in module.named_parameters():
        assert (parameter.grad is not None) == parameter.requires_grad, name


def test_dropout_is_of_the_global_batch():
    """Each of two ranks drops what one alone drops of its images; another step drops others."""
    module = alone(build(dropout=0.5))
    rows = torch.ones(8, 10, 6)
    whole = module._drop(rows, 3)
    assert set(whole.unique().tolist()) == {0.0, 2.0}
    assert not torch.equal(whole, module._drop(rows, 4))
    module.trainer.world_size = 2
    halves = []
    for rank in (0, 1):
        module.trainer.global_rank = rank
        halves.append(module._drop(rows[:4], 3))
    assert torch.equal(torch.cat(halves), whole)


def test_the_backbone_learns_at_a_share_of_the_rate():
    module = build(backbone_rate=0.25)
    module.trainer = None
    module.optimizer, module.lr_scheduler = torch.optim.SGD, None
    first, second = module.configure_optimizers().param_groups
    assert first["lr"] == 0.25 * second["lr"]
    assert len(first["params"]) == len(list(module.network.backbone.parameters()))
    learning = [p for p in module.parameters() if p.requires_grad]
    assert len(first["params"]) + len(second["params"]) == len(learning)


def test_is_built_again_from_its_checkpoint(tmp_path):
    module = build(PYRAMID, hidden=None, triplet_margin=1.4)
    found = ReIDModule.load_from_checkpoint(save(module, tmp_path / "parts.ckpt"))
    assert isinstance(found, PartIdentityModule)
    assert found.network.windows == [(0, 1), (1, 2), (0, 2)]
    assert same(found.state_dict(), module.state_dict())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_clusters": 0}, "model.max_clusters must be at least 2"),
        ({"hidden": 0}, "model.hidden must be at least 1"),
        ({"dropout": 1.0}, "dropout=1.0"),
        ({"triplet_margin": 0.0}, "triplet_margin=0.0: must be finite and above 0, or null"),
        ({"backbone_rate": 0.0}, "backbone_rate=0.0"),
    ],
)
def test_bad_options(options, message):
    with pytest.raises(ValueError, match=message):
        build(**options)


def test_goes_on_in_mid_epoch_with_the_very_weights(drawn, tmp_path):
    whole = fit(build(), drawn, SaveAfterStep(tmp_path / "middle.ckpt"), labeler=Identities())
    again = fit(build(), drawn, labeler=Identities(), ckpt_path=tmp_path / "middle.ckpt")
    assert same(whole.state_dict(), again.state_dict())


def test_two_processes_train_as_one(drawn, run, run_several, tmp_path):
    """With dropout, triplets and statistics that both take together."""
    words = [
        *(one for one in options(drawn, "")[1:-1] if not one.startswith("--pseudo_labels")),
        "--model.triplet_margin=1.4",
        "--model.network.norm_batch_size=16",
    ]
    words = ["--config=configs/pcb_market1501.yaml", *words]
    folder = "--trainer.logger.init_args.save_dir={}".format
    run("fit", *words, folder(tmp_path / "one"))
    ddp = ("--trainer.devices=2", "--trainer.strategy=ddp")
    done = run_several(2, "fit", *words, folder(tmp_path / "two"), *ddp)
    assert done.returncode == 0, done.stderr
    one, two = (tmp_path / name / "pcb/version_0" for name in ("one", "two"))
    for name in ("train/loss", "train/loss_triplet", "val/mAP"):
        found = column(two, name)
        assert found
        assert found == pytest.approx(column(one, name), rel=1e-6), name
