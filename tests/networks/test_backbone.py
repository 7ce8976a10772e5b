from __future__ import annotations

import pytest
import timm
import torch
import torch.nn.functional as nnf
from huggingface_hub import HfApi
from timm.layers import resample_abs_pos_embed

from pplr_lightning.networks import PartNetwork
from pplr_lightning.networks import backbone as backbone_module
from pplr_lightning.networks.backbone import ask_hub, create_backbone, read_map

# name, last stride, width, rows and columns of the map of a 384 x 128 image
BACKBONES = [
    ("resnet10t", 1, 512, (24, 8)),
    ("resnet10t", 2, 512, (12, 4)),
    ("test_convnext", 1, 64, (23, 7)),  # its last stride is that of a kernel of 2: a row less
    ("test_convnext", 2, 64, (12, 4)),
    ("test_vit", 2, 64, (24, 8)),
    ("test_vit2", 2, 64, (24, 8)),
]


def part_network(backbone, image_size, **options):
    torch.manual_seed(0)
    options = {"weights": None, "norm_batch_size": 2, **options}
    return PartNetwork(backbone, image_size=image_size, **options)


@pytest.mark.parametrize(("backbone", "last_stride", "width", "grid"), BACKBONES)
def test_map_of_a_large_image(backbone, last_stride, width, grid):
    network = part_network(backbone, (384, 128), last_stride=last_stride).eval()
    feature_map, _ = read_map(network.backbone, torch.randn(1, 3, 384, 128))
    assert feature_map.shape == (1, width, *grid)


@pytest.mark.parametrize("image_size", [(256, 128), (64, 32)])
@pytest.mark.parametrize("backbone", ["resnet10t", "test_convnext", "test_vit", "test_vit2"])
def test_every_parameter_learns_at_every_size(backbone, image_size):
    network = part_network(backbone, image_size, last_stride=2 if "vit" in backbone else 1)
    output = network(torch.randn(4, 3, *image_size))
    assert output.features.shape == (4, network.num_features)
    assert output.part_features.shape == (4, network.num_features, 3)
    sum(values.square().mean() for values in output).backward()
    for name, parameter in network.named_parameters():
        assert (parameter.grad is not None) == parameter.requires_grad, name


@pytest.fixture(scope="module")
def vit():
    """With 6 x 3 patches: two rows for each of three parts."""
    return part_network("test_vit", (96, 48), last_stride=2).eval()


class TestViT:
    def test_features_are_class_token_and_rows_of_tokens(self, vit):
        images = torch.randn(2, 3, 96, 48)
        tokens = vit.backbone.forward_features(images)  # (2, 1 + 18, 64)
        token, patches = tokens[:, 0], tokens[:, 1:]
        output = vit(images)
        assert torch.allclose(output.features, vit.neck(token))
        for part, neck in enumerate(vit.part_necks):
            rows = [
                token for row in (2 * part, 2 * part + 1) for token in range(3 * row, 3 * row + 3)
            ]
            stripe = torch.stack([patches[:, row] for row in rows]).mean(0)
            assert torch.allclose(output.part_features[:, :, part], neck(stripe), atol=1e-6)

    def test_the_map_lies_as_the_image(self, vit):
        """Without blocks, a patch changes its own token and no other."""
        backbone = create_backbone("test_vit", (96, 48)).eval()
        backbone.blocks = torch.nn.Identity()
        images = torch.randn(1, 3, 96, 48)
        changed = images.clone()
        changed[:, :, 64:80, 16:32] += 1  # row 4, column 1
        before, after = (read_map(backbone, x)[0] for x in (images, changed))
        assert (before != after).any(dim=1).nonzero().tolist() == [[0, 4, 1]]

    def test_without_class_token_the_map_is_pooled(self):
        network = part_network("test_vit2", (64, 32), last_stride=2).eval()
        images = torch.randn(2, 3, 64, 32)
        patches = network.backbone.forward_features(images)[:, 1:]  # behind a register
        expected = network.neck(patches.mean(1))
        assert torch.allclose(network(images).features, expected, atol=1e-6)

    def test_registers_are_left_out(self):
        backbone = create_backbone("vit_small_patch14_reg4_dinov2", (42, 28)).eval()
        images = torch.randn(1, 3, 42, 28)
        tokens = backbone.forward_features(images)  # (1, 1 + 4 + 6, 384)
        feature_map, token = read_map(backbone, images)
        assert torch.equal(token, tokens[:, 0])
        assert torch.equal(feature_map.flatten(2).transpose(1, 2), tokens[:, 5:])

    def test_an_image_does_not_depend_on_the_rest_of_the_batch(self):
        """All but the groups of the necks: so processes may divide a batch."""
        network = part_network("test_vit", (64, 32), last_stride=2).double().train()
        images = torch.randn(6, 3, 64, 32, dtype=torch.float64)
        whole, share = network(images), network(images[2:4])
        assert torch.allclose(whole.features[2:4], share.features)
        assert torch.allclose(whole.part_features[2:4], share.part_features)

    def test_swin_gives_its_map_with_channels_last(self):
        network = part_network("swin_tiny_patch4_window7_224", (128, 64), last_stride=2).eval()
        images = torch.randn(1, 3, 128, 64)
        feature_map, token = read_map(network.backbone, images)
        assert torch.equal(feature_map.permute(0, 2, 3, 1), network.backbone(images))
        assert feature_map.shape == (1, 768, 4, 2)
        assert token is None
        with pytest.raises(ValueError, match=r"images of 64 x 64, but .* are for 128 x 64"):
            network(torch.randn(1, 3, 64, 64))

    def test_other_images_than_it_was_made_for(self, vit):
        message = r"images of 64 x 32, but .* are for 96 x 48: .* the same image_size"
        with pytest.raises(ValueError, match=message):
            vit(torch.randn(2, 3, 64, 32))


class TestHub:
    """Where the published weights are, is known before timm tries for a minute."""

    @pytest.fixture
    def asked(self, monkeypatch):
        calls = []

        def model_info(api, repository, *, timeout):
            calls.append((repository, timeout))
            raise ConnectionError("no route")

        monkeypatch.setattr(HfApi, "model_info", model_info)
        return calls

    def test_without_a_connection_it_is_said_at_once(self, asked, monkeypatch):
        monkeypatch.setattr(backbone_module, "try_to_load_from_cache", lambda *_: None)
        network = part_network("resnet18", (64, 32), weights="pretrained")
        message = (
            r"weights of resnet18 cannot be loaded \(no route\); .* set network.weights to a f"
        )
        with pytest.raises(ValueError, match=message):
            network.load_weights()
        ((repository, timeout),) = asked
        assert repository.startswith("timm/resnet18.")
        assert timeout <= 5

    def test_what_is_there_is_not_asked_for(self, asked, monkeypatch):
        monkeypatch.setattr(
            backbone_module, "try_to_load_from_cache", lambda repository, file: f"/cache/{file}"
        )
        ask_hub("timm/resnet18.a1_in1k")
        ask_hub(None)
        assert asked == []


class TestPublishedPositions:
    """The weights that timm publishes are of another grid."""

    @pytest.fixture
    def published(self, tmp_path, monkeypatch):
        """What stands in for the hub: a file of weights at their native 160 x 160."""
        model = timm.create_model("test_vit")
        torch.save(model.state_dict(), tmp_path / "published.pth")
        create = timm.create_model

        def from_file(name, **options):
            overlay = {"file": str(tmp_path / "published.pth")} if options["pretrained"] else {}
            return create(name, pretrained_cfg_overlay=overlay, **options)

        monkeypatch.setattr(timm, "create_model", from_file)
        monkeypatch.setattr(HfApi, "model_info", lambda *_, **__: None)
        return model

    def test_are_resampled_to_the_image(self, published):
        network = part_network("test_vit", (256, 128), last_stride=2, weights="pretrained")
        network.load_weights()
        expected = resample_abs_pos_embed(published.pos_embed, [16, 8], [10, 10])
        assert torch.equal(network.backbone.pos_embed, expected)
        own, weights = network.backbone.state_dict(), published.state_dict()
        assert all(torch.equal(own[n], weights[n]) for n in own if n != "pos_embed")

    def test_are_themselves_at_their_own_size(self, published):
        network = part_network("test_vit", (160, 160), last_stride=2, weights="pretrained")
        network.load_weights()
        images = torch.randn(1, 3, 160, 160)
        token = read_map(network.eval().backbone, images)[1]
        assert torch.equal(network.backbone.pos_embed, published.pos_embed)
        assert torch.allclose(token, published.eval().forward_features(images)[:, 0], atol=1e-6)


@pytest.mark.parametrize("rows", [6, 7, 8, 16, 23])
def test_stripes_are_those_of_adaptive_pooling(rows):
    network = part_network("resnet10t", (64, 32)).eval()
    network.backbone = torch.nn.Identity()  # what goes in is the map
    feature_map = torch.randn(2, 512, rows, 5)
    expected = nnf.adaptive_avg_pool2d(feature_map, (3, 1)).squeeze(3)
    found = network(feature_map).part_features  # behind fresh necks: but for eps, what was pooled
    assert torch.allclose(found * (1 + 1e-5) ** 0.5, expected, atol=1e-6)


@pytest.mark.parametrize(
    ("backbone", "image_size", "last_stride", "message"),
    [
        (
            "test_vit",
            (384, 128),
            1,
            r"last_stride=1: .*no strided last stage.*set last_stride to 2",
        ),
        (
            "test_vit",
            (90, 48),
            2,
            r"image_size=\(90, 48\) is no multiple of the 16 x 16 .* \[96, 48\]",
        ),
        (
            "test_vit",
            (32, 32),
            2,
            r"num_parts=3: .*'test_vit' gives of a 32 x 32 image has only 2 r",
        ),
        (
            "resnet10t",
            (64, 32),
            2,
            r"num_parts=3: .*has only 2 rows; use fewer parts, larger images",
        ),
        (
            "test_mambaout",
            (64, 32),
            2,
            r"gives no feature map .*\(1, 256, 2, 1\).* or a ViT such as",
        ),
        ("deit_tiny_distilled_patch16_224", (64, 32), 2, "'deit_tiny_distilled.*distilled head"),
        ("mobilenetv3_small_050", (64, 32), 2, "gives no feature map"),
    ],
)
def test_what_gives_no_map_of_stripes(backbone, image_size, last_stride, message):
    with pytest.raises(ValueError, match=message):
        part_network(backbone, image_size, last_stride=last_stride)


def test_gem_is_not_of_tokens():
    with pytest.raises(
        ValueError, match=r"pooling='gem': .*backbone 'test_vit' have; choose 'avg'"
    ):
        part_network("test_vit", (64, 32), last_stride=2, pooling="gem")


def test_a_model_of_the_users_own_that_names_no_published_weights():
    @timm.models.register_model
    def my_resnet_without_weights(pretrained=False, **options):
        return timm.create_model("resnet10t", **options)

    assert part_network("my_resnet_without_weights", (64, 32)).num_features == 512
