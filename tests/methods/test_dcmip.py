from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from pplr_lightning.data import TrainBatch
from pplr_lightning.labelers import Space
from pplr_lightning.methods import DCMIPModule, ReIDModule
from pplr_lightning.methods.dcmip import draw_images
from pplr_lightning.networks import PartOutput

from ..test_resume import same
from ..tiny import save
from .small_runs import SaveAfterStep, alone, fit, network, options, read, train_as_one


def build(**options):
    torch.manual_seed(0)
    return DCMIPModule(network(), **{"instances": 4, **options})


@pytest.mark.parametrize("rule", ["every", "hardest"])
def test_a_step_is_that_of_the_published_code(rule, monkeypatch):
    """Loss, gradient and both rows, from features to rows."""
    arrays = read("dcmip")
    module = alone(
        build(
            temperature=float(arrays["temp"]),
            momentum=float(arrays["momentum"]),
            margin=float(arrays["margin"]),
            update=rule,
            instances=0,
        )
    )
    both = arrays["proxies"].unflatten(0, (2, -1))
    module.memory.reset(both[0])
    module.means.reset(both[1])
    rows, targets = arrays["features"].clone().requires_grad_(), arrays["targets"]
    monkeypatch.setattr(
        module.network, "forward", lambda images: PartOutput(images, images[..., None][..., :0])
    )
    batch = TrainBatch(rows, targets, targets, targets, {})
    loss = module.training_step(batch, 0)
    loss.backward()
    module.end_step(batch)
    exact = {"rtol": 1e-12, "atol": 1e-12}
    torch.testing.assert_close(loss.detach(), arrays[f"loss_cluster_{rule}"], **exact)
    torch.testing.assert_close(rows.grad, arrays[f"grad_cluster_{rule}"], **exact)
    found = torch.cat([module.memory.rows, module.means.rows])
    torch.testing.assert_close(found, arrays[f"proxies_after_{rule}"], **exact)


def test_below_the_margin_one_row_teaches_nothing(monkeypatch):
    module = alone(build(instances=0, margin=1e6, temperature=1.0))
    rows = torch.eye(3)[:2].clone().requires_grad_()
    monkeypatch.setattr(
        module.network, "forward", lambda images: PartOutput(images, images[..., None][..., :0])
    )
    module.memory.reset(torch.eye(3).flip(0))
    module.means.reset(torch.eye(3))
    loss = module.training_step(TrainBatch(rows, *[torch.tensor([0, 1])] * 3, {}), 0)
    expected = F.cross_entropy(torch.eye(3)[:2], torch.tensor([0, 1])) / 2
    torch.testing.assert_close(loss.detach(), expected)


def test_instances_are_images_of_their_cluster_as_the_teacher_sees_them():
    module, torch_rows = alone(build()), torch.randn(9, 512)
    teacher = F.normalize(torch.randn(9, 512), dim=1)
    classes = torch.tensor([1, 0, -1, 1, 0, 2, 2, 1, 2])
    space = Space.of(F.normalize(torch_rows, dim=1), teacher[..., None])
    module.begin_epoch(space, classes)
    assert module.images.shape == (4, 3, 512)
    for slot in module.images:
        for one, row in enumerate(slot):
            likeness = teacher @ row
            assert likeness.max() > 1 - 1e-6
            assert classes[likeness.argmax()] == one
    assert torch.equal(module.means.rows, module.memory.rows)
    first = module.images
    module.begin_epoch(space, classes)
    assert torch.equal(module.images, first)  # the same epoch
    module.trainer.current_epoch = 1
    module.begin_epoch(space, classes)
    assert not torch.equal(module.images, first)


def test_every_image_of_a_cluster_may_be_drawn():
    classes = np.array([2, -1, 0, 2, 1, 2, -1, 0])
    drawn = draw_images(classes, 200, np.random.default_rng(0))
    assert drawn.shape == (200, 3)
    for one in range(3):
        assert set(drawn[:, one]) == set(np.flatnonzero(classes == one))


def test_the_teacher_follows_and_has_the_networks_statistics(drawn):
    module = fit(build(teacher_momentum=0.5), drawn)
    own, other = dict(module.teacher.named_parameters()), dict(module.network.named_parameters())
    weights = "backbone.conv1.0.weight" if "backbone.conv1.0.weight" in own else next(iter(own))
    assert not torch.equal(own[weights], other[weights])
    assert (own[weights] - other[weights]).abs().max() < 1e-3  # lr 3.5e-4, half of it a step
    assert not any(parameter.requires_grad for parameter in module.teacher.parameters())


def test_is_built_again_from_its_checkpoint(tmp_path):
    module = build(margin=0.3)
    module.memory.reset(torch.eye(3))
    module.means.reset(torch.eye(3).flip(0))
    module.images = torch.rand(4, 3, 3)
    found = ReIDModule.load_from_checkpoint(save(module, tmp_path / "dcmip.ckpt"))
    assert isinstance(found, DCMIPModule)
    assert (found.margin, found.instances) == (0.3, 4)
    assert torch.equal(found.means.rows, torch.eye(3).flip(0))
    assert torch.equal(found.images, module.images)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"margin": -1.0}, "margin=-1.0: must be finite and not negative"),
        ({"instances": -1}, "model.instances must be at least 0"),
        ({"teacher_momentum": 1.0}, "teacher_momentum=1.0"),
    ],
)
def test_bad_options(options, message):
    with pytest.raises(ValueError, match=message):
        build(**options)


def test_goes_on_in_mid_epoch_with_the_very_memory(drawn, tmp_path):
    whole = fit(build(), drawn, SaveAfterStep(tmp_path / "middle.ckpt"))
    again = fit(build(), drawn, ckpt_path=tmp_path / "middle.ckpt")
    assert same(whole.state_dict(), again.state_dict())


def test_two_processes_train_as_one(drawn, run, run_several, tmp_path):
    config, *others = options(drawn, "")
    words = [config.replace("cluster_contrast", "dcmip"), "--model.instances=3", *others]
    losses = ("train/loss", "train/loss_instances")
    train_as_one(run, run_several, tmp_path, words, "dcmip", *losses)
