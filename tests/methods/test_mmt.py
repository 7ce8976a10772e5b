from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F
from lightning.pytorch import Callback

from pplr_lightning import PPLRModule
from pplr_lightning.callbacks.frozen_layers import FrozenLayers
from pplr_lightning.data import EvalBatch, TrainBatch
from pplr_lightning.labelers import Space
from pplr_lightning.methods import MMTModule, ReIDModule
from pplr_lightning.networks import PartOutput

from ..test_resume import same
from ..tiny import save
from .small_runs import SaveAfterStep, alone, fit, network, read, train_as_one
from .small_runs import options as cluster_contrast_options


def build(**options):
    torch.manual_seed(0)
    return MMTModule(network(), **{"max_clusters": 40, **options})


def batch_of(images=8):
    targets = torch.arange(images // 2).repeat_interleave(2)
    views = (torch.randn(images, 3, 64, 32) for _ in range(2))
    return TrainBatch(next(views), targets, targets, targets, {}, (next(views),))


def test_the_loss_is_that_of_the_authors(monkeypatch):
    """The whole loss of a step and its gradients, from features and logits."""
    arrays = read("mmt_losses")
    module = alone(
        build(
            soft_identity=float(arrays["ce_weight"]),
            soft_triplet=float(arrays["triplet_weight"]),
            label_smoothing=float(arrays["smoothing"]),
        )
    )
    names = [f"{kind}_{n}" for kind in ("features", "logits") for n in (1, 2)]
    rows = {n: arrays[n].requires_grad_() for name in names for n in (name, f"mean_{name}")}
    for networks, classifiers, mean in (
        (module.students, module.classifiers, ""),
        (module.teachers, module.mean_classifiers, "mean_"),
    ):
        for number, (one, classifier) in enumerate(zip(networks, classifiers, strict=True), 1):
            found = rows[f"{mean}features_{number}"], rows[f"{mean}logits_{number}"]
            output = PartOutput(found[1], found[0][..., None][..., :0])
            monkeypatch.setattr(one, "forward_pooled", lambda _, o=output, p=found[0]: (o, p))
            monkeypatch.setattr(classifier, "forward", lambda logits: logits)
    targets = arrays["targets"]
    batch = TrainBatch(targets, targets, targets, targets, {}, (targets,))
    loss = module.training_step(batch, 0)
    loss.backward()
    exact = {"rtol": 1e-12, "atol": 1e-12}
    torch.testing.assert_close(loss.detach(), arrays["total"], **exact)
    for name in names:
        torch.testing.assert_close(rows[name].grad, arrays[f"total_grad_{name}"], **exact)
        assert rows[f"mean_{name}"].grad is None


def test_all_four_start_alike_and_only_the_students_learn():
    module = alone(build())
    assert len(module.all_networks) == 4
    assert module.all_networks[0] is module.network
    for one in module.all_networks[1:]:
        assert same(one.state_dict(), module.network.state_dict())
    module.training_step(batch_of(), 0).backward()
    learning = {n for n, p in module.named_parameters() if p.grad is not None}
    assert learning == {n for n, p in module.named_parameters() if p.requires_grad}
    assert {name.partition(".")[0] for name in learning} == {"students", "classifiers"}


def test_chunks_are_as_the_whole_batch():
    """Of the students, whose activations are computed again, and of the teachers."""
    whole, parts = alone(build().double()), alone(build().double())
    batch = batch_of(16)
    batch = batch._replace(images=batch.images.double(), more_views=(batch.more_views[0].double(),))
    for each in parts.all_networks:
        each.chunk_size = 8
    losses = [module.training_step(batch, 0) for module in (whole, parts)]
    for loss in losses:
        loss.backward()
    torch.testing.assert_close(*losses, rtol=1e-12, atol=0)
    for one, other in zip(whole.parameters(), parts.parameters(), strict=True):
        if one.requires_grad:
            torch.testing.assert_close(one.grad, other.grad, rtol=1e-9, atol=1e-12)
    for one, other in zip(whole.buffers(), parts.buffers(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-12)


def test_teachers_follow_after_the_step():
    module = alone(build(momentum=0.5))
    module.trainer.global_step = 0
    with torch.no_grad():
        for parameter in (*module.students.parameters(), *module.classifiers.parameters()):
            parameter.add_(1)
    before = copy.deepcopy(module)
    module.end_step(batch_of())  # the first copies
    pairs = [*zip(module.teachers, module.students, strict=True)]
    pairs.append((module.mean_classifiers, module.classifiers))
    for teacher, student in pairs:
        assert all(map(torch.equal, teacher.parameters(), student.parameters()))
    assert all(map(torch.equal, module.network.buffers(), before.network.buffers()))
    module.trainer.global_step = 7
    with torch.no_grad():
        for parameter in module.students.parameters():
            parameter.add_(1)
    module.end_step(batch_of())
    moved = module.students[0].neck.weight - module.network.neck.weight
    torch.testing.assert_close(moved, torch.full_like(moved, 0.5))


def test_labels_are_made_of_the_mean_of_both_teachers():
    module = build()
    module.other_teacher.load_state_dict(network().state_dict())  # another
    images, numbers = torch.randn(4, 3, 64, 32), torch.arange(4)
    batch = EvalBatch(images, numbers, numbers, numbers, numbers > 3)
    found, parts = module.embed_batches([batch])
    assert parts.shape == (4, module.network.num_features, 0)
    assert module.network.training  # again
    module.eval()
    first, second = (F.normalize(one(images).features, dim=1) for one in module.teachers)
    assert not torch.allclose(first, second, atol=1e-3)
    torch.testing.assert_close(found, F.normalize(first + second, dim=1))


def test_an_epoch_begins_with_the_means_and_an_optimiser_without_moments():
    module = alone(build())
    optimizer = torch.optim.Adam(module.parameters())
    optimizer.state["of the last epoch"] = 1
    module.trainer.optimizers = [optimizer]
    features = F.normalize(torch.randn(12, module.network.num_features), dim=1)
    classes = torch.tensor([0, 0, 1, -1, 2, 2, 1, 0, -1, 2, 1, 0])
    assert module.begin_epoch(Space.of(features), classes) == {}
    mean = F.normalize(features[classes == 1].mean(0), dim=0)
    for classifier in (*module.classifiers, *module.mean_classifiers):
        assert classifier.num_clusters == 3
        torch.testing.assert_close(classifier.weight[1], mean)
    assert not optimizer.state


def test_is_built_again_from_its_checkpoint_and_embeds_by_the_teacher(tmp_path):
    module = build(momentum=0.9)
    module.network.load_state_dict(network().state_dict())
    for classifier in (*module.classifiers, *module.mean_classifiers):
        classifier.num_clusters = 7
    path = save(module, tmp_path / "mmt.ckpt")
    found = ReIDModule.load_from_checkpoint(path)
    assert isinstance(found, MMTModule)
    assert found.momentum == 0.9
    assert same(found.state_dict(), module.state_dict())
    images = torch.randn(4, 3, 64, 32)
    expected = F.normalize(module.eval().network(images).features, dim=1)
    torch.testing.assert_close(found.eval()(images), expected)
    started = PPLRModule(network(weights=str(path)))  # from the tested network
    started.network.load_weights()
    assert same(started.network.state_dict(), module.network.state_dict())


def test_is_shared_by_the_teacher_alone(tmp_path):
    module = build()
    module.network.load_state_dict(network().state_dict())
    module.save_pretrained(tmp_path / "shared")
    found = MMTModule.from_pretrained(tmp_path / "shared")
    assert same(found.network.state_dict(), module.network.state_dict())


def test_rates_decay_over_the_layers_of_both_students():
    module = build()
    module.layer_decay = 0.5
    optimizer = module.configure_optimizers()
    shares = {id(p): g["lr"] / 3.5e-4 for g in optimizer.param_groups for p in g["params"]}
    for student in module.students:
        stem = next(student.backbone.parameters())
        assert shares[id(stem)] < shares[id(student.neck.weight)] == pytest.approx(1)
    assert id(next(module.network.backbone.parameters())) not in shares


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"soft_identity": 1.5}, r"soft_identity=1.5: must lie in \[0, 1\]"),
        ({"soft_triplet": -1.0}, "soft_triplet=-1.0"),
        ({"label_smoothing": 2.0}, "label_smoothing=2.0"),
        ({"momentum": 1.0}, "momentum=1.0"),
        ({"max_clusters": 0}, "model.max_clusters must be at least 2, got 0"),
    ],
)
def test_bad_options(options, message):
    with pytest.raises(ValueError, match=message):
        build(**options)


def test_a_network_with_parts():
    with pytest.raises(
        ValueError, match=r"network.num_parts=2: .* the global feature alone; use 0"
    ):
        MMTModule(network(num_parts=2))


def train(drawn, *callbacks, ckpt_path=None, **options):
    options = {"views": 2, **options}
    return fit(build(), drawn, *callbacks, ckpt_path=ckpt_path, **options)


class Momentum(Callback):
    """Notes after each step whether a teacher is its student."""

    def __init__(self):
        self.copies = []

    def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx):
        pairs = zip(module.network.parameters(), module.students[0].parameters(), strict=True)
        self.copies.append(all(torch.equal(*pair) for pair in pairs))


def test_goes_on_in_mid_epoch_with_the_very_networks(drawn, tmp_path):
    """A checkpoint has the teachers after the step, their statistics and the step's number."""
    momentum = Momentum()
    whole = train(drawn, SaveAfterStep(tmp_path / "middle.ckpt"), momentum)
    again = train(drawn, ckpt_path=tmp_path / "middle.ckpt")
    assert same(whole.state_dict(), again.state_dict())
    assert momentum.copies == [True] + 5 * [False]  # counted over the epochs
    students = (one.state_dict() for one in whole.students)
    assert not same(*students)  # the views made them differ


def test_frozen_layers_stay_in_all_networks(drawn):
    whole, start = train(drawn, FrozenLayers()), build().network
    for one in whole.all_networks:
        assert same(one.backbone.state_dict(), start.backbone.state_dict())
    assert not torch.equal(whole.students[0].neck.weight, start.neck.weight)


def test_one_view_is_refused(drawn):
    with pytest.raises(ValueError, match=r"data.views=1: .* two views of each image .*; use 2"):
        train(drawn, views=1)


def options(drawn, folder):
    config, *others = cluster_contrast_options(drawn, folder)
    return [config.replace("cluster_contrast", "mmt"), *others, "--model.max_clusters=40"]


@pytest.mark.parametrize("group", [8, pytest.param(16, marks=pytest.mark.slow)])
def test_two_processes_train_as_one(drawn, run, run_several, tmp_path, group):
    """With groups of 16, the two hold one together."""
    words = [*options(drawn, tmp_path), f"--model.network.norm_batch_size={group}"]
    parts = ("", "_identity", "_soft_identity", "_triplet", "_soft_triplet")
    losses = [f"train/loss{part}" for part in parts]
    train_as_one(run, run_several, tmp_path, words, "mmt", *losses, rel=1e-6)
