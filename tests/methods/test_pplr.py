from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as nnf
from lightning.pytorch import Trainer

from pplr_lightning import PPLRModule
from pplr_lightning.data import Sample, TrainBatch
from pplr_lightning.functional import (
    aals_loss,
    camera_contrastive_loss,
    cluster_centroids,
    cross_agreement,
    pglr_loss,
    relative_agreement,
    softmax_triplet_loss,
)
from pplr_lightning.labelers import Space
from pplr_lightning.methods.pplr import CameraProxies
from pplr_lightning.networks import PartNetwork


@pytest.fixture
def batch():
    torch.manual_seed(0)
    return TrainBatch(
        images=torch.randn(8, 3, 64, 32),
        indices=torch.arange(8),
        targets=torch.tensor([0, 0, 1, 1, 2, 2, 3, 3]),
        cameras=torch.zeros(8, dtype=torch.long),
        columns={"agreement": torch.rand(8, 2)},
    )


def build(*, num_parts=2, **options):
    torch.manual_seed(0)
    network = PartNetwork("resnet10t", weights=None, num_parts=num_parts, norm_batch_size=8)
    module = PPLRModule(network, **{"max_clusters": 6, **options})
    module.reset_classifiers(
        nnf.normalize(torch.randn(4, 512)), nnf.normalize(torch.randn(4, 512, num_parts), dim=1)
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


def losses(module, batch, epoch):
    """One training step at `epoch`, without a fit around it."""
    trainer = Trainer(accelerator="cpu", logger=False, enable_checkpointing=False)
    trainer.fit_loop.epoch_progress.current.completed = epoch
    module.trainer = trainer
    logged = {}
    module.log_dict = lambda values, **_: logged.update(values)
    loss = module.training_step(batch, 0)
    return loss, logged


def test_camera_loss_is_that_of_the_global_feature_and_the_mean_of_the_parts(batch):
    module = build(camera_weight=0.7)
    batch = batch._replace(cameras=torch.arange(8) % 3)
    proxies = camera_proxies()
    module.proxies = proxies
    without, _ = losses(build(), batch, 0)
    loss, logged = losses(module, batch, 0)
    output = module.network(batch.images)
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
    module.proxies = proxies._replace(features=-proxies.features)
    assert losses(module, batch, 0)[0].item() != pytest.approx(loss.item())  # a new epoch's


def test_proxies_follow_the_images_of_a_step(batch):
    module, proxies = build(camera_weight=0.7, proxy_momentum=0.2), camera_proxies()
    module.proxies = proxies
    columns = {**batch.columns, "proxy": torch.tensor([0, 0, 3, 4, 8, 8, 8, 1])}
    batch = batch._replace(columns=columns, cameras=torch.arange(8) % 3)
    losses(module, batch, 0)
    module.end_step(batch)
    unit = nnf.normalize(module.network(batch.images).features, dim=1)
    row = proxies.features[0]
    for image in (0, 1):  # one after the other, in the order of the batch
        row = nnf.normalize(0.2 * row + 0.8 * unit[image], dim=0)
    torch.testing.assert_close(module.proxies.features[0], row)
    parts = nnf.normalize(module.network(batch.images).part_features, dim=1)
    part = nnf.normalize(0.2 * proxies.part_features[4] + 0.8 * parts[3], dim=0)
    torch.testing.assert_close(module.proxies.part_features[4], part)
    for unseen in (2, 5, 6, 7):
        assert torch.equal(module.proxies.features[unseen], proxies.features[unseen])
    assert module.proxies.labels is proxies.labels


def expected(module, batch, *, beta, aals):
    output = module.network(batch.images)
    logits, part_logits = module.logits(output)
    agreement = batch.columns["agreement"]
    parts = [
        aals_loss(part_logits[..., n], batch.targets, agreement[:, n])
        if aals
        else nnf.cross_entropy(part_logits[..., n], batch.targets, label_smoothing=0.1)
        for n in range(2)
    ]
    pglr = pglr_loss(logits, part_logits, batch.targets, agreement, beta=beta)
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
    module.proxies = proxies
    output = module.network(batch.images)
    module.network.forward = lambda images: output
    expected, _ = losses(module, batch, 5)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found, _ = losses(module, batch, 5)
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
    gradient = module.classifier.weight.grad
    assert (gradient[:4].abs().sum(1) > 0).all()
    assert (gradient[4:] == 0).all()


@pytest.mark.parametrize("name", ["beta", "label_smoothing", "proxy_momentum"])
@pytest.mark.parametrize("value", [-0.1, 1.5])
def test_bad_options(name, value):
    with pytest.raises(ValueError, match=rf"{name}={value}: must lie in \[0, 1\]"):
        build(**{name: value})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"camera_weight": -1.0}, "camera_weight=-1.0: must be finite and not negative"),
        ({"camera_weight": math.nan}, "camera_weight=nan"),
        ({"aals_start_epoch": -1}, "model.aals_start_epoch must be at least 0, got -1"),
        ({"max_clusters": 0}, "max_clusters must be at least 2, got 0"),
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
    loaded = PPLRModule.load_from_checkpoint(path)
    assert loaded.beta == 0.3
    images = torch.randn(2, 3, 64, 32)
    assert torch.equal(loaded.eval()(images), module.eval()(images))
    assert loaded.logits(loaded.network(images))[0].shape == (2, 4)


def test_without_parts_it_is_identity_loss_and_triplet(batch):
    module = build(num_parts=0)
    batch = batch._replace(columns={"agreement": torch.empty(8, 0)})
    loss, logged = losses(module, batch, 9)
    output = module.network(batch.images)
    identity = nnf.cross_entropy(module.logits(output)[0], batch.targets)
    triplet = softmax_triplet_loss(output.features, batch.targets)
    assert loss.item() == pytest.approx((identity + triplet).item(), rel=1e-5)
    assert "train/loss_parts" not in logged


class TestBeginEpoch:
    @pytest.fixture
    def space(self):
        torch.manual_seed(0)
        features = nnf.normalize(torch.randn(24, 512), dim=1)
        parts = nnf.normalize(torch.randn(24, 512, 2), dim=1)
        return Space.of(features, parts, cameras=torch.arange(24) % 3)

    def test_scores_agreement_and_sets_the_classifiers(self, space):
        module, classes = build(agreement_k=5), torch.arange(24) % 4
        classes[3] = -1
        columns = module.begin_epoch(space, classes)
        agreement = cross_agreement(space.features, space.part_features, k=5)
        torch.testing.assert_close(columns, {"agreement": agreement})
        expected = cluster_centroids(space.features, classes)
        assert torch.equal(module.classifier.weight[:4], expected)
        for n, classifier in enumerate(module.part_classifiers):
            expected = cluster_centroids(space.part_features[..., n], classes)
            torch.testing.assert_close(classifier.weight[:4].data, expected)
        assert module.proxies is None

    def test_smooths_by_the_agreement_that_is_usual(self, space):
        module, classes = build(agreement_k=5, aals_agreement="relative"), torch.arange(24) % 4
        columns = module.begin_epoch(space, classes)
        agreement = cross_agreement(space.features, space.part_features, k=5)
        assert torch.equal(columns["agreement"], agreement)
        expected = relative_agreement(agreement, classes)
        assert torch.equal(columns["relative_agreement"], expected)

    def test_makes_camera_proxies_where_a_loss_wants_them(self, space, tmp_path):
        module, classes = build(agreement_k=5, camera_weight=0.5), torch.arange(24) % 4
        module.begin_epoch(space, classes)
        assert module.proxies.features.shape == (12, 512)
        assert module.proxies.part_features.shape == (12, 512, 2)
        first = (module.proxies.labels == 0) & (module.proxies.cameras == 0)
        mean = space.features[(classes == 0) & (space.cameras == 0)].mean(0)
        torch.testing.assert_close(module.proxies.features[first][0], nnf.normalize(mean, dim=0))
        other = build(camera_weight=0.5)
        other.load_state_dict(module.state_dict())  # a run that goes on in mid-epoch
        assert all(map(torch.equal, other.proxies, module.proxies))

    def test_tells_each_image_its_proxy_where_these_move(self, space):
        module, classes = build(camera_weight=0.5, proxy_momentum=0.2), torch.arange(24) % 4
        classes[3] = -1
        proxy = module.begin_epoch(space, classes)["proxy"]
        assert proxy[3] == -1
        kept = classes >= 0
        assert torch.equal(module.proxies.labels[proxy[kept]], classes[kept])
        assert torch.equal(module.proxies.cameras[proxy[kept]], space.cameras[kept])

    def test_without_parts_there_is_no_agreement(self, space):
        module = build(num_parts=0)
        columns = module.begin_epoch(Space.of(space.features), torch.arange(24) % 4)
        assert columns["agreement"].shape == (24, 0)


def test_images_that_it_cannot_train_on():
    samples = [Sample("x.jpg", -1, 1)] * 20
    with pytest.raises(ValueError, match=r"model.agreement_k=20 for 19 images"):
        build().check_images(samples)
    with pytest.raises(ValueError, match=r"model.camera_weight is above 0, but all training"):
        build(camera_weight=1.0, agreement_k=2).check_images(samples)
    with pytest.warns(UserWarning, match=r"model.agreement_k=2 suits people of about 2 images"):
        build(agreement_k=2).check_images(samples)
