from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from pplr_lightning.data import EvalBatch, Sample, TrainBatch
from pplr_lightning.functional import margin_triplet_loss
from pplr_lightning.labelers import DBSCAN, CameraLinkage, Space
from pplr_lightning.methods import IICSModule, ReIDModule
from pplr_lightning.networks import AdaptiveNetwork, GroupBatchNorm, PartOutput

from ..test_ddp import column
from ..test_resume import same
from ..tiny import save
from .small_runs import OneProcess, SaveAfterStep, alone, fit, read
from .small_runs import network as part_network
from .small_runs import options as cluster_contrast_options

LABELER = {"k1": 6, "k2": 2, "share_within": 0.1, "share_across": 0.02, "rounds": 1}


def build(*, epoch=0, **options):
    torch.manual_seed(0)
    network = AdaptiveNetwork("test_resnet", weights=None, norm_batch_size=8)
    module = alone(IICSModule(network, max_clusters=64, **options))
    module.trainer = OneProcess()
    module.trainer.current_epoch = epoch
    module.trainer.optimizers = []
    return module


@pytest.mark.parametrize(("dtype", "tolerance"), [("float64", 1e-12), ("float32", 1e-5)])
def test_scores_are_the_authors(dtype, tolerance, monkeypatch):
    """From the pooled features of images and their mirror images, which the network averages."""
    arrays = {name: one.to(getattr(torch, dtype)) for name, one in read("iics_scores").items()}
    module = build(epoch=1, num_cameras=2).to(getattr(torch, dtype))
    module.network.num_features = 2048
    module.necks = torch.nn.ModuleList(torch.nn.BatchNorm1d(2048) for _ in range(3))
    module.to(getattr(torch, dtype)).eval()
    with torch.no_grad():
        for camera in range(2):
            neck = module.necks[camera]
            neck.weight.copy_(arrays["bn_weight"][camera])
            neck.running_mean.copy_(arrays["running_mean"][camera])
            neck.running_var.copy_(arrays["running_var"][camera])
        module.classifier.weight = torch.nn.Parameter(
            torch.cat([arrays["weight_0"], arrays["weight_1"], arrays["weight_1"]])
        )
    module.bounds = [0, 3, 7]
    mean = arrays["pooled"].mean(1)  # of an image and its mirror image, as the network gives it
    close = {"rtol": tolerance, "atol": tolerance}
    torch.testing.assert_close(module.score(mean), arrays["scores"], **close)
    monkeypatch.setattr(module.network, "forward", lambda images: PartOutput(images, images[:, :0]))
    features, _ = module.embed_batches([EvalBatch(mean, *[torch.arange(6)] * 4)])
    for found, name in ((features, "features"), (module.image_scores(), "scores")):
        assert found.dtype == torch.float32
        torch.testing.assert_close(found, arrays[name].float(), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("dtype", "tolerance"), [("float64", 1e-12), ("float32", 1e-5)])
def test_the_triplet_loss_is_the_authors(dtype, tolerance):
    arrays = read("iics_triplet")
    rows = arrays["embeddings"].clone().to(getattr(torch, dtype)).requires_grad_()
    loss = margin_triplet_loss(rows, arrays["targets"], margin=float(arrays["margin"]))
    loss.backward()
    for found, expected in ((loss.detach(), arrays["loss"]), (rows.grad, arrays["grad"])):
        expected = expected.to(found)
        scale = expected.abs().max()
        torch.testing.assert_close(found / scale, expected / scale, rtol=0, atol=tolerance)


def batch_of(targets):
    return TrainBatch(torch.randn(len(targets), 3, 64, 32), targets, targets, targets, {})


def begin(module):
    """Six images of each of two cameras: classes 0 and 1, and 2 to 4."""
    cameras = torch.tensor([5, 2]).repeat(6)
    classes = torch.tensor([2, 0, 2, 0, 3, 1, 3, 1, 4, 0, 4, 1])
    if module.is_across:
        classes = torch.arange(12) // 3
    features = F.normalize(torch.randn(12, module.network.num_features), dim=1)
    assert module.begin_epoch(Space.of(features, cameras=cameras), classes) == {}


def test_within_cameras_each_has_a_head():
    module = build(num_cameras=3)
    begin(module)
    assert module.bounds == [0, 2, 5]
    targets = torch.tensor([0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 4, 4, 4, 4])
    rows = torch.randn(16, module.network.num_features)
    loss = module._within(rows, targets)
    own = [
        F.cross_entropy(
            F.batch_norm(rows[part], None, None, training=True) @ module.classifier.weight[head].T,
            targets[part] - head.start,
        )
        for part, head in ((slice(8), slice(0, 2)), (slice(8, 16), slice(2, 5)))
    ]
    torch.testing.assert_close(loss, sum(own))


@pytest.mark.parametrize("epoch", [0, 1])
def test_every_trainable_parameter_has_a_gradient(epoch):
    module = build(epoch=epoch, num_cameras=3)
    begin(module)
    targets = torch.tensor([0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3])
    module.training_step(batch_of(targets), 0).backward()
    for name, parameter in module.named_parameters():
        assert (parameter.grad is not None) == parameter.requires_grad, name
    assert set(module.losses) == {"train/loss", "train/loss_identity"} | (
        {"train/loss_triplet"} if epoch else set()
    )


def test_rates_double_across_cameras_and_heads_begin_anew():
    module = build()
    module.trainer.optimizers = [torch.optim.SGD(module.learning_parameters(), lr=0.5)]
    (optimizer,) = module.trainer.optimizers
    rates, weights = [], []
    for epoch in range(3):
        module.trainer.current_epoch = epoch
        optimizer.state[module.classifier.weight] = {"momentum_buffer": torch.ones(1)}
        module.necks[0].running_mean.fill_(1)
        begin(module)
        assert not optimizer.state
        assert not module.necks[0].running_mean.any()
        rates.append(optimizer.param_groups[0]["lr"])
        weights.append(module.classifier.weight.clone())
    assert rates == [0.5, 1.0, 0.5]
    assert not torch.equal(weights[0], weights[1])
    assert module.classifier.num_clusters == 5
    for epoch, rate in ((2, 0.5), (2, 0.5), (3, 1.0)):  # of another fit, which goes on from there
        module.trainer.current_epoch = epoch
        if not epoch % 2:
            module.trainer.optimizers = [torch.optim.SGD(module.learning_parameters(), lr=0.5)]
        begin(module)
        begin(module)
        assert module.trainer.optimizers[0].param_groups[0]["lr"] == rate


def test_after_a_run_the_network_has_its_own_groups():
    module = build(num_cameras=3)
    begin(module)
    module.training_step(batch_of(torch.tensor([0] * 8 + [2] * 8)), 0)
    norms = [m for m in module.network.modules() if isinstance(m, GroupBatchNorm)]
    norms[0].group_size = module.images_per_camera = 4
    module._ranks = "of this run"
    module.teardown("fit")
    assert {(norm.group_size, norm.ranks) for norm in norms} == {(8, None)}
    assert module._ranks is None


def test_a_labeler_that_knows_no_cameras(drawn):
    with pytest.raises(ValueError, match=r"camera \d has no classes of its own.* CameraLinkage"):
        train(drawn, labeler=DBSCAN(k1=6, k2=2, eps=0.6, min_samples=2))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_cameras": 1}, "model.num_cameras"),
        ({"num_cameras": 65}, "model.num_cameras must be at most 64, got 65"),
        ({"images_per_camera": 1}, "model.images_per_camera"),
        ({"triplet_margin": 0.0}, "triplet_margin=0.0: must be finite and above 0"),
        ({"backbone_rate": 0.0}, "backbone_rate=0.0"),
    ],
)
def test_bad_options(options, message):
    with pytest.raises(ValueError, match=message):
        build(**options)


def test_a_network_with_parts():
    with pytest.raises(ValueError, match=r"network.num_parts=2: .* feature alone; use 0"):
        IICSModule(part_network(num_parts=2))


@pytest.mark.parametrize(
    ("cameras", "processes", "message"),
    [
        ([0, 1, 2], 1, "model.num_cameras=2: the images are of 3 cameras"),
        ([0, -1], 1, "IICS: cameras must be known"),
        ([0, 1], 4, "divides the 2 cameras over the processes, here 4"),
    ],
)
def test_cameras_that_do_not_fit(cameras, processes, message):
    module = build(num_cameras=2)
    module.trainer.world_size = processes
    with pytest.raises(ValueError, match=message):
        module.check_images([Sample("", 0, camera) for camera in cameras])


def test_is_built_again_from_its_checkpoint(tmp_path):
    module = build(num_cameras=2, triplet_margin=0.5)
    module.bounds = [0, 3, 5]
    found = ReIDModule.load_from_checkpoint(save(module, tmp_path / "iics.ckpt"))
    assert isinstance(found, IICSModule)
    assert isinstance(found.network, AdaptiveNetwork)
    assert (found.triplet_margin, found.bounds) == (0.5, [0, 3, 5])
    assert same(found.state_dict(), module.state_dict())


def train(drawn, *callbacks, labeler=None, ckpt_path=None, **options):
    torch.manual_seed(0)
    network = AdaptiveNetwork("test_resnet", weights=None, norm_batch_size=8)
    module = IICSModule(network, num_cameras=4, max_clusters=64)
    options = {"instances": 4, "labeler": labeler or CameraLinkage(**LABELER), **options}
    return fit(module, drawn, *callbacks, ckpt_path=ckpt_path, **options)


class SaveAt(SaveAfterStep):
    """Saves in the middle of both kinds of epochs."""

    def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx):
        assert len(batch.images) == (16 if module.is_across else 32)
        if trainer.global_step in (1, 4):
            trainer.save_checkpoint(self.path / f"{trainer.global_step}.ckpt")


def test_goes_on_in_mid_epoch(drawn, tmp_path):
    whole = train(drawn, SaveAt(tmp_path))
    labels = whole.trainer.datamodule.pseudo_labels
    assert (labels.per_camera, whole.bounds[-1] > 4) == (None, True)
    for step in (1, 4):
        again = train(drawn, ckpt_path=tmp_path / f"{step}.ckpt")
        assert same(whole.state_dict(), again.state_dict()), step


def test_images_of_a_camera_in_broken_groups(drawn):
    with pytest.raises(ValueError, match=r"images_per_camera=8: must be a multiple of data.inst"):
        train(drawn, instances=16)


def options(drawn, folder):
    config, *others = cluster_contrast_options(drawn, folder)
    return [
        config.replace("cluster_contrast", "iics"),
        *(one for one in others if "min_samples" not in one),
        "--pseudo_labels.labeler.share_within=0.1",
        "--pseudo_labels.labeler.share_across=0.02",
        "--model.max_clusters=64",
        "--model.network.norm_batch_size=16",
    ]


def test_two_processes_train_as_one(drawn, run, run_several, tmp_path):
    """Across cameras the two hold a group together."""
    run("fit", *options(drawn, tmp_path / "one"))
    ddp = ("--trainer.devices=2", "--trainer.strategy=ddp")
    done = run_several(2, "fit", *options(drawn, tmp_path / "two"), *ddp)
    assert done.returncode == 0, done.stderr
    one, two = (tmp_path / name / "iics/version_0" for name in ("one", "two"))
    for name in (
        "train/loss", "train/loss_identity", "train/loss_triplet", "labels/clusters", "val/mAP",
    ):  # fmt: skip
        found = column(two, name)
        assert found
        assert found == pytest.approx(column(one, name), rel=1e-6), name
