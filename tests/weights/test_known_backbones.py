"""Files as other projects write them, made of a backbone of ours, give that backbone again."""

from __future__ import annotations

import re

import pytest
import timm
import torch
import torch.nn.functional as nnf

from pplr_lightning.networks import PartNetwork
from pplr_lightning.networks.backbone import create_backbone
from pplr_lightning.networks.swin_solider import SwinSOLIDER
from pplr_lightning.weights.backbone_weights import load_backbone_weights
from pplr_lightning.weights.known_backbones import CLIP, HALVES, IMAGENET, KNOWN, recognise_backbone

SIZE = (64, 32)


def vit(**options):
    options = {"img_size": SIZE, "num_classes": 0, "global_pool": "", **options}
    return timm.create_model("test_vit", **options)


def swin(kind=SwinSOLIDER, **options):
    small = {"embed_dim": 8, "depths": (2, 2), "num_heads": (2, 4), "window_size": 4}
    model = kind(img_size=SIZE, num_classes=0, global_pool="", **{**small, **options})
    model.pretrained_cfg = {}
    return model


def randomised(model, seed):
    torch.manual_seed(seed)
    for tensor in model.state_dict().values():
        if tensor.is_floating_point():
            tensor.copy_(torch.rand_like(tensor) + 0.1)
    return model.eval()


def prefixed(weights, prefix):
    return {f"{prefix}{name}": value for name, value in weights.items()}


def clip_names(weights, prefix="visual."):
    renamed = {}
    for name, value in weights.items():
        name = name.replace("blocks.", "transformer.resblocks.").replace("norm_pre", "ln_pre")
        name = name.replace("attn.qkv.", "attn.in_proj_").replace("attn.proj", "attn.out_proj")
        name = name.replace("mlp.fc1", "mlp.c_fc").replace("mlp.fc2", "mlp.c_proj")
        name = re.sub(r"\.norm([12])", r".ln_\1", re.sub(r"^norm\.", "ln_post.", name))
        name = name.replace("patch_embed.proj", "conv1").replace(
            "pos_embed", "positional_embedding"
        )
        renamed[name.replace("cls_token", "class_embedding")] = value
    renamed["class_embedding"] = renamed["class_embedding"][0, 0]
    renamed["positional_embedding"] = renamed["positional_embedding"][0]
    return prefixed({**renamed, "proj": torch.zeros(64, 4)}, prefix)


def clip(weights):
    return {**clip_names(weights), "token_embedding.weight": torch.zeros(5, 4)}


def clip_reid(weights):
    text = {"prompt_learner.cls_ctx": torch.zeros(3, 4), "classifier.weight": torch.zeros(2, 64)}
    return prefixed({**clip_names(weights, "image_encoder."), **text}, "module.")


def pass_names(weights):
    names = dict(weights)
    first, parts, names["pos_embed"] = (
        names["pos_embed"][:, :1],
        names["pos_embed"][:, 1:4],
        names["pos_embed"][:, 4:],
    )
    names["cls_pos"] = first
    tokens = names.pop("reg_token")
    for number in range(3):
        names[f"part_token{number + 1}"] = tokens[:, number : number + 1]
        names[f"part{number + 1}_pos"] = parts[:, number : number + 1]
    student = prefixed({n: -v for n, v in names.items()}, "module.backbone.")
    return {"student": student, "teacher": prefixed(names, "backbone.")}


def mmcv_names(weights):
    renamed = {}
    for name, value in weights.items():
        stage = re.match(r"layers\.(\d+)\.downsample", name)
        if stage:
            name = name.replace(stage[0], f"stages.{int(stage[1]) - 1}.downsample")
            if not name.endswith("reduction.bias"):  # by column, row, channel
                value = (
                    value.unflatten(-1, (2, 2, -1)).movedim(-1, -3).transpose(-1, -2).flatten(-3)
                )
        name = name.replace("layers.", "stages.").replace(
            "patch_embed.proj", "patch_embed.projection"
        )
        name = name.replace("attn.", "attn.w_msa.").replace("mlp.fc1", "ffn.layers.0.0")
        renamed[re.sub(r"^norm\.", "norm3.", name.replace("mlp.fc2", "ffn.layers.1"))] = value
    return {**renamed, "norm0.weight": torch.ones(8)}


def microsoft_names(weights):
    renamed = {}
    for name, value in weights.items():
        stage = re.match(r"layers\.(\d+)\.downsample", name)
        if stage:
            name = name.replace(stage[0], f"layers.{int(stage[1]) - 1}.downsample")
        renamed[name] = value
    return {
        "model": {
            **renamed,
            "layers.0.blocks.1.attn_mask": torch.zeros(3),
            "head.bias": torch.zeros(3),
        }
    }


def load(model, content, tmp_path):
    torch.save(content, tmp_path / "theirs.pth")
    return load_backbone_weights(model, tmp_path / "theirs.pth")


def assert_equal(model, weights):
    for name, value in model.state_dict().items():
        if not name.endswith("num_batches_tracked"):
            assert torch.equal(value, weights[name]), name


def resnet(prefix=""):
    return lambda weights: {
        "state_dict": prefixed({**weights, "fc.weight": torch.zeros(2)}, prefix)
    }


def plain_swin():
    return swin(timm.models.swin_transformer.SwinTransformer)


LAYOUTS = {
    # what it holds, its backbone, how it is saved, what it is called, whose normalisation it has
    "CLIP": (lambda: vit(pre_norm=True, act_layer="quick_gelu"), clip, CLIP),
    "CLIP-ReID": (lambda: vit(pre_norm=True, act_layer="quick_gelu"), clip_reid, HALVES),
    "PASS": (lambda: vit(reg_tokens=3), pass_names, HALVES),
    "MMCV": (plain_swin, mmcv_names, None),
    "Swin's authors": (plain_swin, microsoft_names, IMAGENET),
    "fast-reid": (
        lambda: create_backbone("resnet50_ibn_a", SIZE),
        lambda w: {
            "model": {**prefixed(w, "backbone."), "heads.bottleneck.0.weight": w["bn1.bias"]}
        },
        IMAGENET,
    ),
    "TransReID-SSL with the ICS stem": (
        lambda: create_backbone("vit_small_ics", SIZE),
        lambda w: {"teacher": {**prefixed(w, "backbone."), "head.mlp.0.bias": torch.zeros(3)}},
        HALVES,
    ),
    "TransReID": (
        vit,
        lambda w: prefixed(
            {**prefixed(w, "base."), "bottleneck.weight": torch.ones(64)}, "module."
        ),
        HALVES,
    ),
    "torchreid": (
        lambda: create_backbone("osnet_x0_25", SIZE),
        lambda w: {
            "state_dict": prefixed(
                {**w, "fc.0.weight": torch.zeros(4), "classifier.bias": torch.zeros(3)}, "module."
            ),
            "epoch": 60,
            "optimizer": {"state": {0: {"exp_avg": torch.zeros(3)}}},
        },
        IMAGENET,
    ),
    "IBN-Net": (
        lambda: create_backbone("resnet50_ibn_a", SIZE),
        lambda w: {**w, "fc.weight": torch.zeros(3, 4)},
        IMAGENET,
    ),
}


@pytest.mark.parametrize("project", LAYOUTS)
def test_what_a_project_saved_is_what_is_loaded(project, tmp_path):
    make, save, normalisation = LAYOUTS[project]
    theirs, ours = randomised(make(), 1), randomised(make(), 2)
    weights = theirs.state_dict()
    line = load(ours, save(weights), tmp_path)
    assert_equal(ours, weights)
    assert line.startswith(f"{len(weights)} tensors from {tmp_path / 'theirs.pth'} ({project})")
    assert "; left out " in line
    if normalisation is None:
        assert ours.weights_project == "published"
    else:
        assert (ours.pretrained_cfg["mean"], ours.pretrained_cfg["std"]) == normalisation
        assert ours.weights_project == project


def test_every_known_layout_is_tried_here():
    tried = {*LAYOUTS, "SOLIDER", "EfficientNet-Lite0 of lukemelas"}
    assert {layout.project for layout in KNOWN} == tried


class TestSOLIDER:
    @pytest.fixture
    def weights(self):
        return randomised(swin(), 1).state_dict()

    @pytest.fixture
    def file(self, weights):
        """Weights as of a network whose embeddings still stand beside its stages."""
        names = mmcv_names({n: w for n, w in weights.items() if not n.endswith("reduction.bias")})
        for kind in "wb":
            for stage in range(2):
                names[f"semantic_embed_{kind}.{stage}.weight"] = torch.rand(16, 2) - 0.5
                names[f"semantic_embed_{kind}.{stage}.bias"] = torch.rand(16)
        return names

    def test_its_embeddings_are_part_of_the_map_between_stages(self, weights, file, tmp_path):
        ours = randomised(swin(), 2)
        line = load(ours, {"teacher": prefixed(file, "backbone.")}, tmp_path)
        assert "(SOLIDER), its semantic embeddings" in line.replace("; ", ", ")
        assert "at weight 0.2" in line
        names = ("semantic_embed_w.0", "semantic_embed_b.0")
        scale, shift = (
            nnf.linear(torch.tensor([0.2, 0.8]), file[f"{n}.weight"], file[f"{n}.bias"])
            for n in names
        )
        merged = torch.rand(3, 32)
        linear = weights["layers.1.downsample.reduction.weight"]
        expected = nnf.linear(merged, linear) * nnf.softplus(scale) + shift
        assert torch.allclose(ours.layers[1].downsample.reduction(merged), expected, atol=1e-5)
        others = {n: v for n, v in ours.state_dict().items() if "reduction" not in n}
        assert all(torch.equal(v, weights[n]) for n, v in others.items())

    def test_timms_own_swin_leaves_them_out_and_says_so(self, weights, file, tmp_path):
        ours = randomised(plain_swin(), 2)
        line = load(ours, prefixed(file, "module.base."), tmp_path)
        assert (
            "; without its semantic embeddings, which swin_tiny_solider and the like have" in line
        )
        assert_equal(ours, weights)


class TestEfficientNetLite0:
    NAMES = (
        "_conv_stem.weight",
        "_blocks.0._depthwise_conv.weight",
        "_blocks.0._project_conv.weight",
    )

    def test_is_told_from_one_with_squeeze_and_excitation(self):
        found = recognise_backbone(dict.fromkeys(self.NAMES))
        assert found.layout.project == "EfficientNet-Lite0 of lukemelas"
        assert found.layout.normalisation == HALVES
        with_se = [*self.NAMES, "_blocks.0._se_reduce.weight"]
        assert recognise_backbone(dict.fromkeys(with_se)) is None


class TestSaid:
    def test_tokens_of_parts_for_which_there_is_no_place(self, tmp_path):
        weights = randomised(vit(reg_tokens=3), 1).state_dict()
        ours = randomised(vit(), 2)
        line = load(ours, pass_names(weights), tmp_path)
        assert (
            "; without the tokens of parts, which vit_small_pass and vit_base_pass have; " in line
        )
        positions = weights["pos_embed"]
        assert torch.equal(ours.pos_embed, torch.cat([positions[:, :1], positions[:, 4:]], dim=1))

    def test_another_activation_than_clips(self, tmp_path):
        weights = randomised(vit(pre_norm=True), 1).state_dict()
        line = load(randomised(vit(pre_norm=True), 2), clip(weights), tmp_path)
        assert "; OpenAI trained with QuickGELU, the backbone has GELU: " in line

    def test_embeddings_of_cameras(self, tmp_path):
        weights = randomised(vit(), 1).state_dict()
        content = {**prefixed(weights, "base."), "bottleneck.weight": torch.ones(64)}
        content["base.sie_embed"] = torch.zeros(6, 1, 64)
        line = load(vit(), content, tmp_path)
        assert "; without its embeddings of cameras; left out 2: bottleneck.weight, base.si" in line

    def test_relative_positions_of_another_window(self, tmp_path):
        weights = randomised(plain_swin(), 1).state_dict()
        kind = timm.models.swin_transformer.SwinTransformer
        line = load(swin(kind, window_size=2), microsoft_names(weights), tmp_path)
        assert "; relative positions resampled; " in line

    def test_positions_of_clip_of_another_grid(self, tmp_path):
        weights = randomised(vit(pre_norm=True, img_size=(96, 96)), 1).state_dict()
        line = load(vit(pre_norm=True, act_layer="quick_gelu"), clip(weights), tmp_path)
        assert "; position embeddings resampled from 6 x 6 to 4 x 2; " in line


class TestRefused:
    def test_non_local_layers_of_fast_reid(self, tmp_path):
        weights = prefixed(create_backbone("resnet50_ibn_a", SIZE).state_dict(), "backbone.")
        weights |= {
            "heads.bottleneck.0.weight": torch.ones(2),
            "backbone.NL_2.0.g.bias": torch.ones(1),
        }
        message = (
            r"theirs.pth: backbone.NL_2.0.g.bias is of a non-local layer, which no backbone here"
        )
        with pytest.raises(ValueError, match=message):
            load(create_backbone("resnet50_ibn_a", SIZE), {"model": weights}, tmp_path)

    @pytest.mark.parametrize(
        ("project", "backbone", "message"),
        [
            ("IBN-Net", "resnet50", r"\d+ missing .* layout of IBN-Net, .* to resnet50_ibn_a or "),
            (
                "torchreid",
                "osnet_x1_0",
                r"of another shape .* layout of torchreid, .* to osnet_x1_0",
            ),
            (
                "CLIP",
                "resnet10t",
                r"the backbone is a ResNet; .* layout of CLIP, .* set model.netw",
            ),
            (
                "CLIP",
                "vit_tiny_patch16_224",
                r"its patches are \(64, 3, 16, 16\), the backbone's \(",
            ),
            ("MMCV", "test_vit", r"the backbone is a VisionTransformer; .* layout of MMCV"),
            (
                "TransReID-SSL with the ICS stem",
                "vit_small_patch16_224",
                r"of another shape .* set model.network.backbone to vit_small_ics or vit_base_ics",
            ),
        ],
    )
    def test_another_backbone(self, project, backbone, message, tmp_path):
        make, save, _ = LAYOUTS[project]
        with pytest.raises(ValueError, match=f"theirs.pth: .*{message}"):
            load(create_backbone(backbone, SIZE), save(make().state_dict()), tmp_path)

    def test_a_deeper_swin(self, tmp_path):
        deeper = swin(timm.models.swin_transformer.SwinTransformer, depths=(2, 4)).state_dict()
        with pytest.raises(ValueError, match="it has more blocks than the backbone"):
            load(plain_swin(), microsoft_names(deeper), tmp_path)

    def test_before_any_work(self, tmp_path):
        weights = create_backbone("osnet_x0_25", SIZE).state_dict()
        torch.save(clip(vit(pre_norm=True).state_dict()), tmp_path / "clip.pth")
        with pytest.raises(ValueError, match=r"clip.pth: the backbone is a OSNet; .* of CLIP"):
            PartNetwork(
                "osnet_x0_25", image_size=SIZE, weights=tmp_path / "clip.pth", last_stride=2
            )
        torch.save({"state_dict": prefixed(weights, "module.")}, tmp_path / "model.pth.tar")
        network = PartNetwork(
            "osnet_x0_25", image_size=SIZE, weights=tmp_path / "model.pth.tar", last_stride=2
        )
        network.load_weights()
        assert_equal(network.backbone, weights)
