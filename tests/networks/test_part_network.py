from __future__ import annotations

import copy
import logging

import pytest
import timm
import torch
from huggingface_hub import HfApi

from pplr_lightning.networks import PartNetwork
from pplr_lightning.networks.part_network import GeM


def make(backbone="resnet10t", **options):
    torch.manual_seed(0)
    return PartNetwork(backbone, **{"weights": None, "norm_batch_size": 2, **options})


@pytest.fixture
def network():
    return make()


@pytest.mark.parametrize("num_parts", [0, 1, 3])
@pytest.mark.parametrize("training", [True, False])
def test_shapes_are_the_same_in_training_and_evaluation(num_parts, training):
    network = make(num_parts=num_parts)
    output = network.train(training)(torch.randn(4, 3, 96, 48))
    assert output.features.shape == (4, 512)
    assert output.part_features.shape == (4, 512, num_parts)


@pytest.mark.parametrize(
    ("backbone", "options"),
    [
        ("resnet10t", {}),
        ("resnet10t", {"pooling": "gem"}),
        ("resnet10t", {"chunk_size": 2}),
        ("test_vit", {"last_stride": 2}),
    ],
)
def test_without_parts_there_is_the_global_branch_of_any_other(backbone, options):
    options = {"image_size": (96, 48), **options}
    whole, with_parts = make(backbone, num_parts=0, **options), make(backbone, **options)
    assert len(whole.part_necks) == 0
    images = torch.randn(4, 3, 96, 48)
    output = whole(images)
    assert torch.equal(output.features, with_parts(images).features)
    assert output.part_features.shape == (4, whole.num_features, 0)
    output.features.square().mean().backward()
    for name, parameter in whole.named_parameters():
        assert (parameter.grad is not None) == parameter.requires_grad, name


@pytest.mark.parametrize("backbone", ["resnet10t", "resnet26d", "convnext_atto", "resnet18"])
def test_last_stride_doubles_the_resolution(backbone):
    images = torch.randn(2, 3, 128, 64)
    opened = make(backbone).eval().backbone(images)
    plain = make(backbone, last_stride=2).eval().backbone(images)
    assert plain.shape[2:] == (4, 2)
    assert opened.shape[2] in (7, 8)  # ConvNeXt's kernel of two loses a row


def test_resnet50_is_not_dilated():
    backbone = make("resnet50.tv_in1k").backbone
    convolutions = [m for m in backbone.layer4.modules() if isinstance(m, torch.nn.Conv2d)]
    assert {m.dilation for m in convolutions} == {(1, 1)}
    assert {m.stride for m in convolutions} == {(1, 1)}
    assert backbone.layer3[0].conv2.stride == (2, 2)


def test_parts_see_their_stripe_only(network):
    network.eval()
    images = torch.randn(1, 3, 192, 96)
    changed = images.clone()
    changed[:, :, :16] += 1  # the uppermost rows
    before, after = network(images), network(changed)
    change = (before.part_features - after.part_features).abs().mean(dim=(0, 1))
    assert change[0] > 5 * change[2]


def test_generalised_mean_of_the_map_and_of_its_stripes():
    network = make(pooling="gem").eval()
    images = torch.randn(2, 3, 192, 96)
    feature_map = network.backbone(images)
    output = network(images)  # fresh necks in evaluation: but for eps, what was pooled
    pooled = output.features * (1 + 1e-5) ** 0.5
    expected = (feature_map.clamp(min=1e-6) ** 3).mean((2, 3)) ** (1 / 3)
    assert torch.allclose(pooled, expected, rtol=1e-4)
    first = (feature_map[:, :, :4].clamp(min=1e-6) ** 3).mean((2, 3)) ** (1 / 3)
    assert torch.allclose(output.part_features[:, :, 0] * (1 + 1e-5) ** 0.5, first, rtol=1e-4)
    output.features.sum().backward()
    assert network.gem.p.grad.abs() > 0  # it is learned


def test_neck_bias_is_frozen_and_features_come_behind_it(network):
    for neck in (network.neck, *network.part_necks):
        assert not neck.bias.requires_grad
        assert neck.weight.requires_grad
    output = network(torch.randn(4, 3, 96, 48))
    # features of a group of two are normalised over it
    assert output.features.view(2, 2, -1).mean(1).abs().max() < 1e-4
    assert output.part_features.view(2, 2, -1).mean(1).abs().max() < 1e-4


@pytest.mark.parametrize("options", [{}, {"chunk_size": 2}, {"pooling": "gem", "num_parts": 0}])
def test_features_before_the_neck(options):
    network = make(**options)
    images = torch.randn(4, 3, 96, 48)
    output, pooled = network.forward_pooled(images)
    assert pooled.shape == output.features.shape
    torch.testing.assert_close(network.neck(pooled), output.features)
    torch.testing.assert_close(network(images).features, output.features)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"backbone": "resnet5O"}, "'resnet5O' is no timm model; did you mean resnet50"),
        ({"backbone": "vit_tiny_patch16_224"}, "no strided last stage"),
        ({"backbone": "resnet18.bogus"}, "resnet18.bogus"),
        ({"norm_batch_size": 1}, "norm_batch_size=1"),
        ({"num_parts": -1}, "network.num_parts must be at least 0, got -1"),
        ({"pooling": "max"}, "pooling='max'"),
        ({"last_stride": 3}, "last_stride=3"),
    ],
)
def test_bad_options(options, message):
    with pytest.raises(ValueError, match=message):
        make(**options)


def test_is_built_again_from_its_options(network):
    given = {"backbone": "resnet10t", "weights": None, "norm_batch_size": 2}
    assert network.options.items() >= given.items()
    again = PartNetwork(**network.options)
    again.load_state_dict(network.state_dict())
    images = torch.randn(2, 3, 96, 48)
    assert torch.equal(again.eval()(images).part_features, network.eval()(images).part_features)
    assert again.options == network.options


@pytest.mark.parametrize("pooling", ["avg", "gem"])
def test_under_autocast_only_the_backbone_is_in_half_precision(pooling):
    """Features are float32, and those of the map that the backbone gives."""
    network = make("test_resnet", pooling=pooling)
    heads, maps = copy.deepcopy(network), []
    heads.backbone = torch.nn.Identity()
    network.backbone.register_forward_hook(lambda module, inputs, output: maps.append(output))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = network(torch.randn(4, 3, 64, 32))
    assert maps[0].dtype == torch.bfloat16
    expected = heads(maps[0].float())
    for name, values in found._asdict().items():
        assert values.dtype == torch.float32
        assert torch.equal(values, getattr(expected, name)), name


def test_channels_last_weights_load_into_either_layout():
    plain, last = make("test_resnet"), make("test_resnet", channels_last=True)
    last.load_state_dict(plain.state_dict())
    convolutions = [m for m in last.backbone.modules() if isinstance(m, torch.nn.Conv2d)]
    assert all(m.weight.is_contiguous(memory_format=torch.channels_last) for m in convolutions)
    images = torch.randn(2, 3, 64, 32)
    for one, other in zip(plain.eval()(images), last.eval()(images), strict=True):
        assert torch.allclose(one, other, atol=1e-5)
    assert last.backbone(images.to(memory_format=torch.channels_last)).is_contiguous(
        memory_format=torch.channels_last
    )


class TestPretrained:
    @pytest.fixture
    def network(self, monkeypatch):
        monkeypatch.setattr(HfApi, "model_info", lambda *_, **__: None)  # the hub is there
        return make(weights="pretrained")

    @pytest.fixture
    def calls(self, monkeypatch):
        """The backbones whose published weights timm was asked for."""
        calls, create = [], timm.create_model

        def created(name, pretrained, **options):
            if pretrained:
                calls.append(name)
                torch.manual_seed(7)  # for what stands in for the published weights
            return create(name, pretrained=False, **options)

        monkeypatch.setattr(timm, "create_model", created)
        return calls

    def test_come_from_timm_at_the_first_use(self, network, calls):
        own = network.backbone.layer1[0].conv1.weight
        before = own.detach().clone()
        assert calls == []
        for _ in range(2):
            network(torch.randn(4, 3, 64, 32))
        assert calls == ["resnet10t"]
        torch.manual_seed(7)
        published = timm.create_model("resnet10t", pretrained=False, num_classes=0, global_pool="")
        assert torch.equal(own, published.layer1[0].conv1.weight)
        assert not torch.equal(own, before)

    def test_cannot_be_had(self, network, monkeypatch):
        def fail(name, **options):
            raise OSError("no connection")

        monkeypatch.setattr(timm, "create_model", fail)
        message = r"resnet10t .*no connection.* set network.weights to a file, or to null"
        for _ in range(2):  # the second use is not of random weights, either
            with pytest.raises(ValueError, match=message):
                network(torch.randn(4, 3, 64, 32))

    def test_give_way_to_others(self, network, calls):
        other = make()
        torch.nn.init.ones_(other.backbone.conv1[0].weight)
        network.load_state_dict(other.state_dict())
        network(torch.randn(4, 3, 64, 32))
        assert calls == []
        assert (network.backbone.conv1[0].weight == 1).all()

    def test_give_way_to_others_of_the_backbone_alone(self, network, calls):
        network.backbone.load_state_dict(make().backbone.state_dict())
        network(torch.randn(4, 3, 64, 32))
        assert calls == []

    def test_do_not_give_way_to_a_neck(self, network, calls):
        network.load_state_dict({"neck.weight": torch.ones(512)}, strict=False)
        network(torch.randn(4, 3, 64, 32))
        assert calls == ["resnet10t"]

    def test_are_loaded_by_a_copy(self, network, calls):
        copied = copy.deepcopy(network)
        copied.load_weights()
        network.load_weights()
        assert calls == ["resnet10t"] * 2
        own, other = network.state_dict(), copied.state_dict()
        assert all(torch.equal(own[name], other[name]) for name in own)


class TestWeightsOfAFile:
    @pytest.fixture
    def path(self, tmp_path):
        """Weights of another network's backbone, by timm's names."""
        torch.save(make(num_parts=1).backbone.state_dict(), tmp_path / "other.pth")
        return tmp_path / "other.pth"

    def test_are_loaded_at_the_first_use(self, path, caplog):
        torch.manual_seed(1)
        network = PartNetwork("resnet10t", weights=str(path))
        weights = torch.load(path, weights_only=True)
        assert not torch.equal(network.backbone.conv1[0].weight, weights["conv1.0.weight"])
        with caplog.at_level(logging.INFO):
            network.eval()(torch.randn(1, 3, 64, 32))
            network(torch.randn(1, 3, 64, 32))
        own = network.backbone.state_dict()
        assert all(torch.equal(own[name], tensor) for name, tensor in weights.items())
        assert caplog.text.count(f"{len(weights)} tensors from {path}") == 1

    def test_are_loaded_before_they_are_saved(self, path):
        weights = torch.load(path, weights_only=True)
        state = PartNetwork("resnet10t", weights=str(path)).state_dict()
        assert all(torch.equal(state[f"backbone.{name}"], t) for name, t in weights.items())

    def test_are_left_where_they_are_if_others_are_expected(self, path):
        network = make(weights=str(path))
        path.unlink()
        network.expect_weights()
        network.load_state_dict(make().state_dict())
        network(torch.randn(4, 3, 64, 32))

    def test_a_file_that_is_not_there(self):
        with pytest.raises(FileNotFoundError, match=r"nowhere.pth: no such checkpoint"):
            make(weights="nowhere.pth")

    def test_a_file_that_is_none_of_weights(self, tmp_path):
        (tmp_path / "odd.pth").write_bytes(b"text")
        with pytest.raises(ValueError, match=r"odd.pth: no readable checkpoint"):
            make(weights=str(tmp_path / "odd.pth"))

    @pytest.mark.parametrize("content", [{"fc.weight": torch.zeros(2)}, {"epoch": 3}, [1, 2]])
    def test_a_file_of_nothing_known(self, tmp_path, content):
        torch.save(content, tmp_path / "odd.pth")
        with pytest.raises(
            ValueError, match=r"odd.pth: none of its \d tensors has a name of the b"
        ):
            make(weights=str(tmp_path / "odd.pth"))

    def test_a_file_that_is_gone(self, path):
        network = make(weights=str(path))
        path.unlink()
        for _ in range(2):
            with pytest.raises(FileNotFoundError, match=r"other.pth: no such checkpoint"):
                network(torch.randn(4, 3, 64, 32))

    def test_another_backbones(self, path):
        with pytest.raises(ValueError, match=r"other.pth: not the weights of this backbone"):
            make("resnet14t", weights=str(path))


def test_gem_is_between_the_average_and_the_maximum():
    feature_map = torch.rand(2, 5, 4, 3)

    def pool(gem):
        return gem.root(gem.power(feature_map).mean(dim=(2, 3)))

    assert torch.allclose(pool(GeM(1.0)), feature_map.mean(dim=(2, 3)))
    assert torch.allclose(pool(GeM(200.0)), feature_map.amax(dim=(2, 3)), rtol=0.02)
    assert (pool(GeM()) > feature_map.mean(dim=(2, 3))).all()


def test_gem_gradients_of_nothing_are_finite():
    gem, feature_map = GeM(), torch.zeros(1, 2, 2, 2, requires_grad=True)
    gem.root(gem.power(feature_map).mean(dim=(2, 3))).sum().backward()
    assert feature_map.grad.isfinite().all()
    assert gem.p.grad.isfinite().all()


def test_two_mistakes_are_told_together(tmp_path):
    torch.save({"other.weight": torch.ones(2)}, tmp_path / "other.pth")
    with pytest.raises(ValueError, match=r"other\.pth: none of .*; and last_stride=1: "):
        PartNetwork("mobilenetv3_small_050", weights=str(tmp_path / "other.pth"))


def test_weights_of_a_layout_that_is_known_are_told_of_with_the_other_mistakes(tmp_path):
    """Before any use, as those that nobody knows."""
    state = {f"network.{n}": t for n, t in make("test_resnet", num_parts=3).state_dict().items()}
    torch.save({"state_dict": state}, tmp_path / "ours.ckpt")
    for options, message in (
        ({"num_parts": 2}, "^[^;]*ours.ckpt does not fit the network: [^;]*; set num_parts to 3"),
        (
            {"num_parts": 2, "last_stride": 4},
            r"ours.ckpt does .* set num_parts to 3, .*; and last_stride=4: choose",
        ),
        ({"num_parts": 99}, r"ours.ckpt does .* set num_parts to 3, .*; and num_parts=99: the map"),
    ):
        with pytest.raises(ValueError, match=message):
            make("test_resnet", weights=str(tmp_path / "ours.ckpt"), **options)
