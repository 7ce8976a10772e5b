"""Backbones as other projects save them, by timm's names."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import torch
from timm.data.constants import (
    IMAGENET_DEFAULT_MEAN,
    IMAGENET_DEFAULT_STD,
    OPENAI_CLIP_MEAN,
    OPENAI_CLIP_STD,
)
from timm.models import swin_transformer, vision_transformer
from torch import Tensor
from torch.nn import functional as F

RGB = tuple[float, float, float]
Tensors = dict[str, Tensor]
IMAGENET = (IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD)
CLIP = (OPENAI_CLIP_MEAN, OPENAI_CLIP_STD)
HALVES = ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
# Between meaning and appearance; SOLIDER's authors take it for re-identification.
SEMANTIC_WEIGHT = 0.2


class Converted(NamedTuple):
    """Tensors by the names of a backbone.

    Attributes:
        tensors: By name.
        notes: What else is to be known of them.
    """

    tensors: Tensors
    notes: list[str]


class KnownBackbone(NamedTuple):
    """How a project saves a backbone.

    Attributes:
        project: Whose layout it is.
        marks: Ends of names that a file in this layout has, all behind one prefix.
        backbones: `model.network.backbone` that its weights are for.
        normalisation: Mean and deviation of the images that the project trains on; None where
            that is not known.
        convert: Makes of its tensors, without the prefix, and the backbone those of the backbone's
            names; None where the names are those already.
        kind: Class of the backbones that it can be converted for.
        inside: Between the prefix and the backbone's names.
        without: In no name of such a file.
    """

    project: str
    marks: tuple[str, ...]
    backbones: str
    normalisation: tuple[RGB, RGB] | None
    convert: Callable[[Tensors, Any], Converted] | None = None
    kind: type = object
    inside: str = ""
    without: str | None = None


class Recognised(NamedTuple):
    """A layout that was found in a file.

    Attributes:
        layout: Which.
        prefix: Of the backbone's names.
    """

    layout: KnownBackbone
    prefix: str


def recognise_backbone(names: Mapping[str, Any]) -> Recognised | None:
    """Tells by the names of a file's tensors whose backbone it holds; None where that is not known.

    Of a teacher and a student it is the teacher's.

    Example:
        >>> names = ["m.visual.class_embedding", "m.visual.ln_pre.bias"]
        >>> found = recognise_backbone(dict.fromkeys(names))
        >>> found.layout.project, found.prefix
        ('CLIP', 'm.visual.')
    """
    for layout in KNOWN:
        first, *others = layout.marks
        prefixes = [name.removesuffix(first) for name in names if name.endswith(first)]
        fitting = [p for p in prefixes if all(f"{p}{mark}" in names for mark in others)]
        if fitting and not any((layout.without or "\0") in name for name in names):
            return Recognised(layout, max(fitting, key=lambda prefix: "teacher" in prefix))
    return None


def convert(tensors: Tensors, found: Recognised, backbone: Any) -> Converted:
    """Gives the tensors of a recognised backbone its names in timm; all others keep their own.

    Raises:
        ValueError: The backbone is none that the weights could be of.
    """
    layout, start = found.layout, f"{found.prefix}{found.layout.inside}"
    if layout.convert is None:
        return Converted(tensors, [])
    own = {n.removeprefix(start): t for n, t in tensors.items() if n.startswith(start)}
    others = {n: t for n, t in tensors.items() if not n.startswith(start)}
    if not isinstance(backbone, layout.kind):
        raise ValueError(f"the backbone is a {type(backbone).__name__}")
    converted, notes = layout.convert(own, backbone)
    return Converted({**converted, **others}, notes)


def from_clip(tensors: Tensors, backbone: Any) -> Converted:
    """OpenAI's image encoder, a ViT; timm's own conversion."""
    patch, own = tensors["conv1.weight"].shape, backbone.patch_embed.proj.weight.shape
    if patch != own:  # which timm would resample
        raise ValueError(f"its patches are {tuple(patch)}, the backbone's {tuple(own)}")
    # Not to timm, which would take the position embeddings for those of a square.
    positions = {"pos_embed": tensors.pop("positional_embedding")[None]}
    named = {f"visual.{name}": tensor for name, tensor in tensors.items()}
    converted = vision_transformer.checkpoint_filter_fn(named, backbone)
    notes = []
    activation = type(getattr(backbone.blocks[0].mlp, "act", None)).__name__
    if activation != "QuickGELU":
        notes.append(
            f"OpenAI trained with QuickGELU, the backbone has {activation}: the same features are "
            "those of vit_base_patch16_clip_quickgelu_224"
        )
    return Converted({**converted, **positions}, notes)


def from_pass(tensors: Tensors, backbone: Any) -> Converted:
    """PASS: tokens of three parts, each with a position of its own, as the class token has."""
    parts = ("1", "2", "3")
    first = [tensors.pop("cls_pos")]
    if getattr(backbone, "num_reg_tokens", 0) == len(parts):
        tensors["reg_token"] = torch.cat([tensors.pop(f"part_token{n}") for n in parts], dim=1)
        first += [tensors.pop(f"part{n}_pos") for n in parts]
        notes = []
    else:
        notes = ["without the tokens of parts, which vit_small_pass and vit_base_pass have"]
    tensors["pos_embed"] = torch.cat([*first, tensors["pos_embed"]], dim=1)
    return Converted(tensors, notes)


def from_solider(tensors: Tensors, backbone: Any) -> Converted:
    """SOLIDER: MMCV's Swin, with embeddings of a semantic weight between its stages."""
    semantic = {n: tensors.pop(n) for n in list(tensors) if n.startswith("semantic_embed_")}
    converted, notes = from_mmcv(tensors, backbone)
    if backbone.layers[1].downsample.reduction.bias is None:
        left_out = "without its semantic embeddings, which swin_tiny_solider and the like have"
        return Converted({**converted, **semantic}, [*notes, left_out])
    weight = torch.tensor([SEMANTIC_WEIGHT, 1 - SEMANTIC_WEIGHT], dtype=torch.float64)
    for stage in range(len(backbone.layers) - 1):
        scale, shift = (
            F.linear(
                weight,
                semantic.pop(f"semantic_embed_{kind}.{stage}.weight").double(),
                semantic.pop(f"semantic_embed_{kind}.{stage}.bias").double(),
            )
            for kind in ("w", "b")
        )
        name = f"layers.{stage + 1}.downsample.reduction"
        converted[f"{name}.weight"] = converted[f"{name}.weight"] * F.softplus(scale)[:, None]
        converted[f"{name}.bias"] = shift
    taken = f"its semantic embeddings at weight {SEMANTIC_WEIGHT}"
    return Converted({**converted, **semantic}, [*notes, taken])


def from_mmcv(tensors: Tensors, backbone: Any) -> Converted:
    """A Swin by MMCV's names, whose channels between two stages lie in another order."""
    renamed = {
        _mmcv_name(n): _by_place(t) if ".downsample." in n else t for n, t in tensors.items()
    }
    return from_microsoft(renamed, backbone)


def from_microsoft(tensors: Tensors, backbone: Any) -> Converted:
    """A Swin by its authors' names; timm's own conversion."""
    try:
        converted = swin_transformer.checkpoint_filter_fn(tensors, backbone)
    except AttributeError as error:  # of a block that is not there
        raise ValueError(f"it has more blocks than the backbone ({error})") from error
    resized = any(
        converted[n].shape != t.shape
        for n, t in tensors.items()
        if n.endswith("relative_position_bias_table")
    )
    return Converted(converted, ["relative positions resampled"] if resized else [])


def from_fast_reid(tensors: Tensors, backbone: Any) -> Converted:
    """fast-reid: the names of torchvision and IBN-Net, and layers that neither has."""
    for name in tensors:
        if re.match(r"backbone\.NL_\d", name):
            raise ValueError(f"{name} is of a non-local layer, which no backbone here has")
    note = "fast-reid pools behind the first convolution without padding, which moves its map a bit"
    return Converted(tensors, [note] if hasattr(backbone, "maxpool") else [])


def from_transreid(tensors: Tensors, backbone: Any) -> Converted:
    """TransReID: timm's names, and embeddings of the camera that it adds to every token."""
    cameras = any(name.endswith("sie_embed") for name in tensors)
    return Converted(tensors, ["without its embeddings of cameras"] if cameras else [])


def _mmcv_name(name: str) -> str:
    name = name.replace("patch_embed.projection", "patch_embed.proj").replace("attn.w_msa", "attn")
    name = name.replace("ffn.layers.0.0", "mlp.fc1").replace("ffn.layers.1", "mlp.fc2")
    return re.sub(r"^norm3\.", "norm.", re.sub(r"^stages\.", "layers.", name))


def _by_place(tensor: Tensor) -> Tensor:
    """Orders the last dimension, of four pixels' channels, by pixel and then by channel.

    MMCV has it by channel and then by row and column, timm by column, row and channel.
    """
    last = tensor.unflatten(-1, (-1, 2, 2))  # (..., C, 2, 2)
    return last.movedim(-3, -1).transpose(-3, -2).flatten(-3)


KNOWN = (
    KnownBackbone(
        "CLIP-ReID",
        ("image_encoder.class_embedding", "image_encoder.ln_pre.bias"),
        "vit_base_patch16_clip_quickgelu_224",
        HALVES,
        from_clip,
        vision_transformer.VisionTransformer,
        inside="image_encoder.",
    ),
    KnownBackbone(
        "CLIP",
        ("class_embedding", "ln_pre.bias"),
        "vit_base_patch16_clip_quickgelu_224",
        CLIP,
        from_clip,
        vision_transformer.VisionTransformer,
    ),
    KnownBackbone(
        "PASS",
        ("cls_pos", "part_token1", "pos_embed"),
        "vit_small_pass or vit_base_pass",
        HALVES,
        from_pass,
        vision_transformer.VisionTransformer,
    ),
    KnownBackbone(
        "SOLIDER",
        ("semantic_embed_w.0.weight", "patch_embed.projection.weight"),
        "swin_tiny_solider, swin_small_solider or swin_base_solider",
        HALVES,
        from_solider,
        swin_transformer.SwinTransformer,
    ),
    KnownBackbone(
        "MMCV",
        ("patch_embed.projection.weight", "stages.0.blocks.0.attn.w_msa.qkv.weight"),
        "swin_tiny_patch4_window7_224 or another Swin",
        None,
        from_mmcv,
        swin_transformer.SwinTransformer,
    ),
    KnownBackbone(
        "Swin's authors",
        ("layers.0.downsample.reduction.weight", "patch_embed.proj.weight"),
        "swin_tiny_patch4_window7_224 or another Swin",
        IMAGENET,
        from_microsoft,
        swin_transformer.SwinTransformer,
    ),
    KnownBackbone(
        "fast-reid",
        ("backbone.conv1.weight", "heads.bottleneck.0.weight"),
        "resnet50.tv_in1k, resnet50_ibn_a or another ResNet",
        IMAGENET,
        from_fast_reid,
    ),
    KnownBackbone(
        "TransReID-SSL with the ICS stem",
        ("patch_embed.conv.1.IN.weight", "cls_token"),
        "vit_small_ics or vit_base_ics",
        HALVES,
        from_transreid,
    ),
    KnownBackbone(
        "TransReID",
        ("base.cls_token", "bottleneck.weight"),
        "vit_small_patch16_224 or vit_base_patch16_224",
        HALVES,
        from_transreid,
    ),
    KnownBackbone(
        "torchreid",
        ("conv2.0.conv2a.conv1.weight", "conv5.conv.weight"),
        "osnet_x1_0 or another OSNet",
        IMAGENET,
    ),
    KnownBackbone(
        "IBN-Net",
        ("layer1.0.bn1.IN.weight", "layer4.0.bn1.weight"),
        "resnet50_ibn_a or resnet101_ibn_a",
        IMAGENET,
    ),
    KnownBackbone(
        "EfficientNet-Lite0 of lukemelas",
        ("_conv_stem.weight", "_blocks.0._depthwise_conv.weight", "_blocks.0._project_conv.weight"),
        "tf_efficientnet_lite0",
        HALVES,
        without="_se_reduce",
    ),
)
