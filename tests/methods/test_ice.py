from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F

from pplr_lightning.data import Sample, TrainBatch
from pplr_lightning.labelers import Space
from pplr_lightning.methods import ICEModule, ReIDModule
from pplr_lightning.networks import PartOutput

from ..test_resume import same
from ..tiny import save
from .small_runs import SaveAfterStep, alone, fit, network, read, train_as_one
from .small_runs import options as cluster_contrast_options


def build(**options):
    torch.manual_seed(0)
    return ICEModule(network(), **options)


@pytest.mark.parametrize(
    ("name", "cameras"),
    [
        ("ice_step_few_proxies", False),  # so few that the authors take positives as negatives
        ("ice_step_many_proxies", False),
        ("ice_step_many_proxies", True),
    ],
)
def test_the_loss_is_that_of_the_authors(name, cameras, monkeypatch):
    """Loss and gradient from features; shuffling puts every feature back in its place."""
    arrays = read(name)
    module = alone(
        build(
            cluster_temperature=float(arrays["tau_c"]),
            instance_temperature=float(arrays["tau_v"]),
            consistency_temperature=float(arrays["tau_s"]),
            consistency_weight=float(arrays["kl_weight"]),
            label_smoothing=float(arrays["label_smoothing"]),
            camera_weight=float(cameras),
            camera_scores="published",
        )
    )
    space = Space.of(arrays["image_features"], cameras=arrays["image_cameras"])
    module.begin_epoch(space, arrays["image_labels"])

    def as_they_are(features):
        return PartOutput(features, features[..., None][..., :0])

    monkeypatch.setattr(module.student, "forward", as_they_are)
    monkeypatch.setattr(module.network, "forward", as_they_are)
    rows, targets = arrays["student"].requires_grad_(), arrays["targets"]
    second, weak = arrays["teacher_second"], arrays["teacher_weak"]
    batch = TrainBatch(rows, targets, targets, arrays["cameras"], {}, (second,), weak)
    loss = module.training_step(batch, 3)
    loss.backward()
    exact = {"rtol": 1e-12, "atol": 1e-12}
    parts = ("ccl", "vcl", "kl", *(("cam",) if cameras else ()))
    torch.testing.assert_close(loss.detach(), sum(arrays[f"loss_{p}"] for p in parts), **exact)
    torch.testing.assert_close(rows.grad, sum(arrays[f"grad_{p}"] for p in parts), **exact)


def test_an_epoch_begins_with_the_means_of_the_authors():
    arrays, module = read("ice_step_few_proxies"), build(camera_weight=1.0)
    space = Space.of(arrays["image_features"], cameras=arrays["image_cameras"])
    assert module.begin_epoch(space, arrays["image_labels"]) == {}
    exact = {"rtol": 1e-12, "atol": 1e-12}
    torch.testing.assert_close(module.centers, arrays["centers"], **exact)
    means, clusters, cameras = module.proxies
    order = torch.argsort(cameras, stable=True)  # the authors' has cameras first
    torch.testing.assert_close(means[order], arrays["proxies"], **exact)
    assert torch.equal(clusters[order], arrays["proxy_labels"])
    assert torch.equal(cameras[order], arrays["proxy_cameras"])


def test_each_camera_of_the_batch_counts_half(monkeypatch):
    """The mean of its images' cross entropies, summed over cameras, however many images each has.

    Proxies are at right angles, of two clusters that both cameras saw; each image is at one of its
    cluster's proxies.
    """
    module = alone(build(camera_weight=1.0))
    clusters, cameras = torch.tensor([0, 0, 1, 1]), torch.tensor([0, 1, 0, 1])
    module.proxies = (torch.eye(4), clusters, cameras)
    targets, seen = torch.tensor([0, 0, 0, 1]), torch.tensor([0, 0, 0, 1])
    batch = TrainBatch(torch.empty(0), targets, targets, seen, {})
    loss = module._camera_loss(torch.eye(4)[[0, 0, 1, 2]], batch)
    scores = torch.tensor([1.0, 0.0, 0.0, 0.0]) / 0.07
    one = scores.logsumexp(0) - scores[:2].mean()  # of each image, as all are alike
    torch.testing.assert_close(loss, 2 * 0.5 * one)


def test_only_the_student_learns_and_the_teacher_follows():
    module = alone(build(momentum=0.75))
    assert same(module.student.state_dict(), module.network.state_dict())
    module.centers = F.normalize(torch.randn(4, module.network.num_features), dim=1)
    targets = torch.arange(4).repeat_interleave(2)
    views = [torch.randn(8, 3, 64, 32) for _ in range(3)]
    batch = TrainBatch(views[0], targets, targets, targets, {}, (views[1],), views[2])
    module.training_step(batch, 0).backward()
    learning = {n for n, p in module.named_parameters() if p.grad is not None}
    assert learning == {n for n, p in module.named_parameters() if p.requires_grad}
    assert {name.partition(".")[0] for name in learning} == {"student"}
    with torch.no_grad():
        for parameter in module.student.parameters():
            parameter.add_(1)
    module.end_step(batch)
    left = module.student.neck.weight - module.network.neck.weight
    torch.testing.assert_close(left, torch.full_like(left, 0.75))


def test_the_teacher_sees_other_groups_in_every_step():
    module = alone(build())
    images = torch.randn(16, 3, 64, 32)
    first, other = module._teach(images, 0, 0), module._teach(images, 1, 0)
    assert not torch.allclose(first, other, atol=1e-3)
    again = module._teach(images, 0, 0)
    torch.testing.assert_close(first, again)
    module.eval()  # without batch statistics their order is nothing
    torch.testing.assert_close(module._teach(images, 0, 0), module.network(images).features)


def test_is_built_again_from_its_checkpoint(tmp_path):
    module = build(momentum=0.9, camera_weight=1.0)
    module.centers = torch.eye(3)
    module.proxies = (torch.eye(3), torch.arange(3), torch.tensor([0, 1, 1]))
    found = ReIDModule.load_from_checkpoint(save(module, tmp_path / "ice.ckpt"))
    assert isinstance(found, ICEModule)
    assert found.momentum == 0.9
    assert torch.equal(found.centers, torch.eye(3))
    assert same(found.proxies, module.proxies)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"cluster_temperature": 0.0}, "cluster_temperature=0.0: must be finite and above 0"),
        ({"consistency_weight": -1.0}, "consistency_weight=-1.0"),
        ({"camera_weight": math.inf}, "camera_weight=inf: must be finite"),
        ({"camera_scores": "dot"}, "camera_scores='dot': choose cosine or published"),
        ({"label_smoothing": 2.0}, "label_smoothing=2.0"),
        ({"momentum": 1.0}, "momentum=1.0"),
    ],
)
def test_bad_options(options, message):
    with pytest.raises(ValueError, match=message):
        build(**options)


def test_a_network_with_parts():
    with pytest.raises(
        ValueError, match=r"network.num_parts=2: .* the global feature alone; use 0"
    ):
        ICEModule(network(num_parts=2))


def train(drawn, *callbacks, ckpt_path=None, **options):
    options = {"views": 2, "plain_view": True, **options}
    return fit(build(camera_weight=1.0), drawn, *callbacks, ckpt_path=ckpt_path, **options)


def test_goes_on_in_mid_epoch_with_the_very_networks(drawn, tmp_path):
    whole = train(drawn, SaveAfterStep(tmp_path / "middle.ckpt"))
    again = train(drawn, ckpt_path=tmp_path / "middle.ckpt")
    assert same(whole.state_dict(), again.state_dict())


def test_missing_views_are_refused(drawn):
    with pytest.raises(ValueError, match=r"data.views=2 and data.plain_view=false: .* use 2 and"):
        train(drawn, plain_view=False)


def test_one_camera_is_refused():
    samples = [Sample("0001_c1.jpg", 0, 0)] * 4
    with pytest.raises(ValueError, match=r"ICE: cameras must be two or more.*camera_weight to 0"):
        build(camera_weight=1.0).check_images(samples)
    build().check_images(samples)


def options(drawn, folder):
    config, *others = cluster_contrast_options(drawn, folder)
    return [config.replace("cluster_contrast", "ice"), *others]


@pytest.mark.parametrize(("group", "cameras"), [(8, False), (16, True)])
def test_two_processes_train_as_one(drawn, run, run_several, tmp_path, group, cameras):
    """With groups of 16, the two hold one together."""
    words = [
        *options(drawn, tmp_path),
        f"--model.network.norm_batch_size={group}",
        *(("--model.camera_weight=1", "--data.use_cameras=spread") if cameras else ()),
    ]
    parts = ("", "_cluster", "_instance", "_consistency", *(("_camera",) if cameras else ()))
    losses = [f"train/loss{part}" for part in parts]
    train_as_one(run, run_several, tmp_path, words, "ice", *losses, rel=1e-6)
