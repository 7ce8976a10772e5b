from __future__ import annotations

import pytest
import timm
import torch

from pplr_lightning.models import PartModel


@pytest.fixture
def model():
    torch.manual_seed(0)
    return PartModel("resnet10t", num_parts=3, norm_batch_size=2, max_clusters=7)


@pytest.mark.parametrize("training", [True, False])
def test_shapes_are_the_same_in_training_and_evaluation(model, training):
    output = model.train(training)(torch.randn(4, 3, 96, 48))
    assert output.features.shape == (4, 512)
    assert output.part_features.shape == (4, 512, 3)
    assert output.logits.shape == (4, 7)
    assert output.part_logits.shape == (4, 7, 3)


@pytest.mark.parametrize("backbone", ["resnet10t", "resnet26d", "convnext_atto", "resnet18"])
def test_last_stride_doubles_the_resolution(backbone):
    images = torch.randn(2, 3, 128, 64)
    opened = PartModel(backbone, max_clusters=2).eval().backbone(images)
    plain = PartModel(backbone, last_stride=2, max_clusters=2).eval().backbone(images)
    assert plain.shape[2:] == (4, 2)
    assert opened.shape[2] in (7, 8)  # ConvNeXt's kernel of two loses a row


def test_resnet50_is_not_dilated():
    backbone = PartModel("resnet50.tv_in1k", max_clusters=2).backbone
    convolutions = [m for m in backbone.layer4.modules() if isinstance(m, torch.nn.Conv2d)]
    assert {m.dilation for m in convolutions} == {(1, 1)}
    assert {m.stride for m in convolutions} == {(1, 1)}
    assert backbone.layer3[0].conv2.stride == (2, 2)


def test_parts_see_their_stripe_only(model):
    model.eval()
    images = torch.randn(1, 3, 192, 96)
    changed = images.clone()
    changed[:, :, :16] += 1  # the uppermost rows
    before, after = model(images), model(changed)
    change = (before.part_features - after.part_features).abs().mean(dim=(0, 1))
    assert change[0] > 5 * change[2]


def test_generalised_mean_of_the_map_and_of_its_stripes():
    model = PartModel("resnet10t", pooling="gem", norm_batch_size=2, max_clusters=7).eval()
    images = torch.randn(2, 3, 192, 96)
    feature_map = model.backbone(images)
    output = model(images)  # fresh necks in evaluation: but for eps, what was pooled
    pooled = output.features * (1 + 1e-5) ** 0.5
    expected = (feature_map.clamp(min=1e-6) ** 3).mean((2, 3)) ** (1 / 3)
    assert torch.allclose(pooled, expected, rtol=1e-4)
    first = (feature_map[:, :, :4].clamp(min=1e-6) ** 3).mean((2, 3)) ** (1 / 3)
    assert torch.allclose(output.part_features[:, :, 0] * (1 + 1e-5) ** 0.5, first, rtol=1e-4)
    output.features.sum().backward()
    assert model.gem.p.grad.abs() > 0  # it is learned


def test_neck_bias_is_frozen_and_comes_before_the_classifier(model):
    for head in (model.head, *model.part_heads):
        assert not head.neck.bias.requires_grad
        assert head.neck.weight.requires_grad
    output = model(torch.randn(4, 3, 96, 48))
    assert torch.allclose(output.logits, output.features @ model.head.classifier.weight.T)
    # features of a group of two are normalised over it
    assert output.features.view(2, 2, -1).mean(1).abs().max() < 1e-4


def test_reset_classifiers(model):
    centroids, parts = torch.randn(4, 512), torch.randn(4, 512, 3)
    model.reset_classifiers(centroids, parts)
    assert torch.equal(model.head.classifier.weight[:4], centroids)
    assert torch.equal(model.part_heads[1].classifier.weight[:4], parts[:, :, 1])
    assert model(torch.randn(2, 3, 96, 48)).part_logits.shape == (2, 4, 3)


def test_pretrained_weights_come_from_timm(model, monkeypatch):
    published = timm.create_model("resnet10t", num_classes=0, global_pool="")
    calls = []

    def create(name, **options):
        calls.append((name, options["pretrained"]))
        return published

    monkeypatch.setattr(timm, "create_model", create)
    model.load_pretrained_backbone()
    assert calls == [("resnet10t", True)]
    assert torch.equal(model.backbone.layer1[0].conv1.weight, published.layer1[0].conv1.weight)


def test_pretrained_weights_that_cannot_be_had(model, monkeypatch):
    def fail(name, **options):
        raise OSError("no connection")

    monkeypatch.setattr(timm, "create_model", fail)
    with pytest.raises(ValueError, match=r"resnet10t .*no connection.* model.pretrained to false"):
        model.load_pretrained_backbone()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"backbone": "resnet5O"}, "'resnet5O' is no timm model; did you mean resnet50"),
        ({"backbone": "vit_tiny_patch16_224"}, "no strided last stage"),
        ({"backbone": "resnet18.bogus"}, "resnet18.bogus"),
        ({"norm_batch_size": 1}, "norm_batch_size=1"),
        ({"num_parts": 0}, "num_parts=0"),
        ({"max_clusters": 0}, "max_clusters=0: must be at least 1"),
        ({"pooling": "max"}, "pooling='max'"),
        ({"last_stride": 3}, "last_stride=3"),
    ],
)
def test_bad_options(options, message):
    with pytest.raises(ValueError, match=message):
        PartModel(**{"backbone": "resnet10t", **options})


@pytest.mark.parametrize("pooling", ["avg", "gem"])
def test_under_autocast_only_the_backbone_is_in_half_precision(pooling):
    """Features and logits are float32, and those of the map that the backbone gives."""
    torch.manual_seed(0)
    model = PartModel("test_resnet", norm_batch_size=2, max_clusters=7, pooling=pooling)
    images, maps = torch.randn(4, 3, 64, 32), []
    model.backbone.register_forward_hook(lambda module, inputs, output: maps.append(output))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = model(images)
    assert maps[0].dtype == torch.bfloat16
    expected = model._branches(maps[0].float(), None)
    for name, values in found._asdict().items():
        assert values.dtype == torch.float32
        assert torch.equal(values, getattr(expected, name)), name


def test_channels_last_weights_load_into_either_layout():
    torch.manual_seed(0)
    plain = PartModel("test_resnet", max_clusters=2)
    last = PartModel("test_resnet", max_clusters=2, channels_last=True)
    last.load_state_dict(plain.state_dict())
    convolutions = [m for m in last.backbone.modules() if isinstance(m, torch.nn.Conv2d)]
    assert all(m.weight.is_contiguous(memory_format=torch.channels_last) for m in convolutions)
    images = torch.randn(2, 3, 64, 32)
    for one, other in zip(plain.eval()(images), last.eval()(images), strict=True):
        assert torch.allclose(one, other, atol=1e-5)
    assert last.backbone(images.to(memory_format=torch.channels_last)).is_contiguous(
        memory_format=torch.channels_last
    )
