from __future__ import annotations

import pytest
import timm
import torch
import torchvision
from safetensors.torch import save_file
from timm.layers import resample_abs_pos_embed

from pplr_lightning.weights.backbone_weights import fit_position_embeddings, load_backbone_weights


def backbone(name="test_vit", **options):
    if "vit" in name:
        options = {"img_size": (64, 32), **options}
    return timm.create_model(name, **{"num_classes": 0, "global_pool": "", **options})


def differs(model, weights):
    return [n for n, value in model.state_dict().items() if not torch.equal(value, weights[n])]


@pytest.fixture
def given():
    """Weights as another project saved them, of the size that is wanted, and their names."""
    torch.manual_seed(1)
    return backbone(num_classes=3).state_dict()


def prefixed(weights, prefix):
    return {f"{prefix}{name}": value for name, value in weights.items()}


WRAPPINGS = {
    "bare": lambda w: w,
    "module": lambda w: prefixed(w, "module."),
    "state_dict": lambda w: {"state_dict": prefixed(w, "base."), "epoch": 3},
    "moco": lambda w: {
        "state_dict": {
            **prefixed(w, "module.encoder_q."),
            **prefixed({n: -v for n, v in w.items()}, "module.encoder_k."),
            "module.queue": torch.zeros(4, 9),
        }
    },
    "dino": lambda w: {
        "student": prefixed({n: -v for n, v in w.items()}, "module.backbone."),
        "teacher": {**prefixed(w, "backbone."), "head.mlp.0.weight": torch.zeros(2, 2)},
        "optimizer": {"state": {0: {"exp_avg": torch.zeros(3)}}},
    },
    "lightning": lambda w: {"state_dict": prefixed(w, "model.backbone."), "loops": {"step": 1}},
}


@pytest.mark.parametrize("wrapping", WRAPPINGS)
def test_whatever_it_is_wrapped_in(given, tmp_path, wrapping):
    path = tmp_path / "weights.pth"
    torch.save(WRAPPINGS[wrapping](given), path)
    model = backbone()
    assert differs(model, given)
    report = load_backbone_weights(model, path)
    assert differs(model, given) == []
    assert report.startswith(f"{len(model.state_dict())} tensors from {path}")
    assert "; left out " in report  # the classifier at least


def test_another_implementation_by_its_order(tmp_path):
    torch.manual_seed(1)
    theirs = torchvision.models.mobilenet_v2(num_classes=3).eval()
    for module in theirs.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 2)
    path = tmp_path / "theirs.pth"
    torch.save({"state_dict": prefixed(theirs.state_dict(), "module.")}, path)
    ours = backbone("mobilenetv2_100").eval()
    report = load_backbone_weights(ours, path)
    images = torch.randn(2, 3, 64, 32)
    with torch.no_grad():
        assert torch.equal(ours(images), theirs.features(images))
    assert report == (
        f"260 tensors from {path}, by their order (state_dict.module.features.0.0.weight is "
        "conv_stem.weight, ...); left out 2: state_dict.module.classifier.1.weight, "
        "state_dict.module.classifier.1.bias"
    )


@pytest.mark.parametrize("change", ["kind", "shape", "shorter", "deeper"])
def test_another_order_is_another_network(tmp_path, change):
    weights = {
        f"body.{number}.{name.rpartition('.')[2]}": value
        for number, (name, value) in enumerate(backbone("resnet10t").state_dict().items())
        if not name.endswith("num_batches_tracked")
    }
    if change == "kind":  # of an architecture that shifts before it scales
        weights = {n.replace("bias", "b"): value for n, value in weights.items()}
    elif change == "shape":
        weights["body.0.weight"] = weights["body.0.weight"][1:]
    elif change == "shorter":
        weights.popitem()
    else:
        weights |= {"body.999.weight": torch.zeros(3), "head.weight": torch.zeros(2)}
    torch.save(weights, tmp_path / "other.pth")
    with pytest.raises(ValueError, match=r"other.pth: none of its \d+ tensors has a name of the"):
        load_backbone_weights(backbone("resnet10t"), tmp_path / "other.pth")


def test_report(given, tmp_path):
    torch.save(WRAPPINGS["dino"](given), tmp_path / "dino.pth")
    report = load_backbone_weights(backbone(), tmp_path / "dino.pth")
    assert "under the prefix teacher.backbone.; left out " in report
    total = 2 * len(given) + 2 - len(backbone().state_dict())
    assert report.endswith(
        f"left out {total}: student.module.backbone.cls_token, student.module.backbone.pos_embed, "
        "student.module.backbone.patch_embed.proj.weight, ..."
    )


def test_safetensors(given, tmp_path):
    save_file(given, tmp_path / "weights.safetensors")
    model = backbone()
    load_backbone_weights(model, tmp_path / "weights.safetensors")
    assert differs(model, given) == []


def test_a_resnet_from_before_batches_were_counted(tmp_path):
    torch.manual_seed(1)
    weights = backbone("resnet10t", num_classes=3).state_dict()
    counted = {n: v for n, v in weights.items() if not n.endswith("num_batches_tracked")}
    torch.save(counted, tmp_path / "old.pth")
    model = backbone("resnet10t")
    report = load_backbone_weights(model, tmp_path / "old.pth")
    assert differs(model, weights) == []
    assert report.endswith("; left out 2: fc.weight, fc.bias")


class TestPositions:
    @pytest.mark.parametrize(
        ("image_size", "grid"),
        [((160, 160), (10, 10)), ((256, 128), (16, 8)), ((384, 128), (24, 8))],
    )
    def test_of_another_grid(self, tmp_path, image_size, grid):
        weights = backbone(img_size=image_size).state_dict()
        torch.save(weights, tmp_path / "other.pth")
        model = backbone(img_size=(96, 48))
        report = load_backbone_weights(model, tmp_path / "other.pth")
        expected = resample_abs_pos_embed(weights["pos_embed"], [6, 3], list(grid))
        assert torch.equal(model.pos_embed, expected)
        assert differs(model, {**weights, "pos_embed": expected}) == []
        assert f"; position embeddings resampled from {grid[0]} x {grid[1]} to 6 x 3" in report

    def test_of_the_same_number_are_kept(self, given):
        weights = dict(given)
        assert fit_position_embeddings(weights, backbone()) == ""
        assert weights["pos_embed"] is given["pos_embed"]

    def test_of_no_grid_of_persons(self, tmp_path):
        torch.save(backbone(img_size=(80, 64)).state_dict(), tmp_path / "other.pth")  # 5 x 4
        message = r"other.pth: .*1 of another shape \(pos_embed \(1, 21, 64\) for \(1, 9, 64\)\)"
        with pytest.raises(ValueError, match=message):
            load_backbone_weights(backbone(), tmp_path / "other.pth")

    def test_of_a_backbone_without_any(self):
        weights = {"pos_embed": torch.zeros(1, 5, 3)}
        assert fit_position_embeddings(weights, backbone("resnet10t")) == ""
        assert weights["pos_embed"].shape == (1, 5, 3)


class TestRefused:
    @pytest.mark.parametrize("name", ["nowhere.pth", "nowhere.safetensors"])
    def test_no_file(self, name):
        with pytest.raises(FileNotFoundError, match=rf"{name}: no such checkpoint"):
            load_backbone_weights(backbone(), name)

    def test_code(self, tmp_path):
        torch.save({"state_dict": print}, tmp_path / "evil.pth")
        with pytest.raises(ValueError, match=r"evil.pth: refused, .* execute code"):
            load_backbone_weights(backbone(), tmp_path / "evil.pth")

    @pytest.mark.parametrize("name", ["text.pth", "text.safetensors", "empty.pth"])
    def test_no_weights_at_all(self, tmp_path, name):
        (tmp_path / name).write_bytes(b"" if name.startswith("empty") else b"some text")
        with pytest.raises(ValueError, match=rf"{name}: no readable "):
            load_backbone_weights(backbone(), tmp_path / name)

    @pytest.mark.parametrize("content", [[1, 2], {"a": 1}, {"a": torch.zeros(1)}])
    def test_nothing_of_the_backbone(self, tmp_path, content):
        torch.save(content, tmp_path / "odd.pth")
        message = r"none of its \d tensors has a name of the backbone's; .*the backbone cls_token, "
        with pytest.raises(ValueError, match=message):
            load_backbone_weights(backbone(), tmp_path / "odd.pth")

    def test_a_part_of_it(self, given, tmp_path):
        kept = {n: v for n, v in given.items() if not n.startswith(("norm.", "blocks.5.norm1."))}
        torch.save(kept, tmp_path / "part.pth")
        model = backbone()
        before = {name: value.clone() for name, value in model.state_dict().items()}
        tensors = len(before)
        message = (
            rf"part.pth: not the weights of this backbone. Of its {tensors} tensors, {tensors - 4} "
            r"are there; 4 missing \(blocks.5.norm1.weight, blocks.5.norm1.bias, norm.weight, ...\)"
        )
        with pytest.raises(ValueError, match=message):
            load_backbone_weights(model, tmp_path / "part.pth")
        assert differs(model, before) == []

    def test_a_wider_one(self, tmp_path):
        torch.save(backbone("vit_tiny_patch16_224").state_dict(), tmp_path / "wide.pth")
        with pytest.raises(ValueError, match=r"\d+ of another shape \(cls_token \(1, 1, 192\) for"):
            load_backbone_weights(backbone(), tmp_path / "wide.pth")

    def test_a_deeper_one(self, tmp_path):
        """Every name of the smaller is in it, in the same shape."""
        torch.save(backbone(depth=7).state_dict(), tmp_path / "deep.pth")
        with pytest.raises(ValueError, match=r"12 too many \(blocks.6.norm1.weight, "):
            load_backbone_weights(backbone(), tmp_path / "deep.pth")
