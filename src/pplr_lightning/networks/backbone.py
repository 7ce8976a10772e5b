"""The timm backbone of a model: made for an image size, and read as a map, whatever its family."""

from __future__ import annotations

import difflib
from typing import Any

import timm
import torch
from huggingface_hub import HfApi, constants, try_to_load_from_cache
from timm.layers import DropPath
from torch import Tensor, nn

# What timm does not have, registered with it under names of their own.
from pplr_lightning.networks import (  # noqa: F401
    osnet,
    resnet_ibn,
    swin_solider,
    vit_ics,
    vit_pass,
)

EXAMPLES = "a ConvNet such as resnet50.tv_in1k, or a ViT such as vit_small_patch16_224.dino"


def create_backbone(
    name: str, image_size: tuple[int, int], *, pretrained: bool = False
) -> nn.Module:
    """Makes a timm model without its classifier and pooling.

    A model that timm builds for one image size (ViT) is built for this one. Its position
    embeddings then are a parameter of the right grid, into which timm resamples the published
    ones once. Resampled anew in every step they would need the gradient of a bicubic
    interpolation, for which torch has no deterministic kernel on a GPU.

    Args:
        name: Of the model in timm, with or without a tag.
        image_size: Height and width.
        pretrained: With the weights that timm publishes.

    Raises:
        ValueError: timm does not know the name, or cannot build it for such images.
    """
    if not timm.is_model(name):
        close = difflib.get_close_matches(name, timm.list_models(), n=3)
        hint = f"; did you mean {' or '.join(close)}?" if close else "; see timm.list_models()"
        raise ValueError(f"backbone {name!r} is no timm model{hint}")
    options: dict[str, Any] = {"pretrained": pretrained, "num_classes": 0, "global_pool": ""}
    try:
        published = timm.get_pretrained_cfg(name)  # None of a model that a user registered
        if published is not None and published.fixed_input_size:
            options["img_size"] = image_size
        if published is not None and pretrained:
            ask_hub(published.hf_hub_id)
        backbone = timm.create_model(name, **options)
    except (RuntimeError, AssertionError) as error:  # of a tag (behind the dot), or the size
        raise ValueError(f"backbone {name!r}: {error}") from error
    for module in backbone.modules():  # what it draws would depend on the number of processes
        if isinstance(module, DropPath):
            module.drop_prob = 0.0
    if not has_one_size(backbone):
        return backbone
    patch = backbone.patch_embed.feat_ratio(as_scalar=False)
    pairs = list(zip(image_size, patch, strict=True))
    if any(size % side for size, side in pairs):  # it would leave out the last rows or columns
        near = [max(1, round(size / side)) * side for size, side in pairs]
        raise ValueError(
            f"image_size={tuple(image_size)} is no multiple of the {patch[0]} x {patch[1]} patches "
            f"of backbone {name!r}: use {near}"
        )
    return backbone


def ask_hub(repository: str | None) -> None:
    """Asks the Hugging Face hub for weights, if they are there and not on this machine yet.

    Without a connection timm would try for a minute before it says so; this raises, whatever the
    libraries that it goes through raise, within seconds.
    """
    files = (constants.SAFETENSORS_SINGLE_FILE, constants.PYTORCH_WEIGHTS_NAME)
    cached = (try_to_load_from_cache(str(repository), file) for file in files)
    if repository and not any(isinstance(file, str) for file in cached):
        HfApi().model_info(repository, timeout=5)


def gives_tokens(backbone: nn.Module) -> bool:
    """Tells whether a backbone is a ViT, of whatever kind in timm."""
    patches = getattr(backbone, "patch_embed", None)
    return hasattr(backbone, "num_prefix_tokens") and hasattr(patches, "feat_ratio")


def has_one_size(backbone: nn.Module) -> bool:
    """Tells whether a backbone takes images of the size alone that it was built for: ViT, Swin."""
    patches = getattr(backbone, "patch_embed", None)
    has_size = getattr(patches, "img_size", None) is not None and hasattr(patches, "feat_ratio")
    return has_size and (gives_tokens(backbone) or _is_channels_last(backbone))


def _is_channels_last(backbone: nn.Module) -> bool:
    return str(getattr(backbone, "output_fmt", "")) == "NHWC"


def read_map(backbone: Any, images: Tensor) -> tuple[Tensor, Tensor | None]:
    """Computes each image's map and, of a ViT, the class token, both before any neck.

    A ViT's map are its patch tokens, laid out as the patches lie in the image; its class token is
    the global feature that re-identification takes (He et al., ICCV 2021). Register and
    distillation tokens are left out of both.

    Args:
        backbone: Of `create_backbone`.
        images: (B, 3, H, W).

    Returns:
        The maps (B, D, h, w), and the class tokens (B, D) or None where there are none.

    Raises:
        ValueError: The images are not of the size that a ViT or Swin was built for.
    """
    if has_one_size(backbone):
        own, size = tuple(backbone.patch_embed.img_size), tuple(images.shape[2:])
        if size != own:
            raise ValueError(
                f"images of {size[0]} x {size[1]}, but the position embeddings of the backbone "
                f"are for {own[0]} x {own[1]}: give model and data module the same image_size"
            )
    output = backbone(images)  # (B, D, h, w), Swin's (B, h, w, D), or tokens (B, prefix + h * w, D)
    if not gives_tokens(backbone):
        return output.permute(0, 3, 1, 2) if _is_channels_last(backbone) else output, None
    patches = output[:, backbone.num_prefix_tokens :].transpose(1, 2)
    feature_map = patches.unflatten(2, backbone.patch_embed.grid_size)
    has_class_token = getattr(backbone, "cls_token", None) is not None
    return feature_map, output[:, 0] if has_class_token else None


@torch.no_grad()
def check_feature_map(
    backbone: Any, name: str, *, image_size: tuple[int, int], num_parts: int
) -> None:
    """Runs one image through the backbone to see that a map comes out that has stripes.

    Raises:
        ValueError: There is no map (1, D, h, w), or it has fewer rows than parts.
    """
    shape: tuple[Any, ...]
    try:
        shape = tuple(read_map(backbone.eval(), torch.zeros(1, 3, *image_size))[0].shape)
    except Exception as error:  # whatever a network says to an image of this shape
        shape = (f"{type(error).__name__}: {error}",)
    backbone.train()
    given = f"of a {image_size[0]} x {image_size[1]} image"
    if len(shape) != 4 or shape[1] != backbone.num_features:
        raise ValueError(
            f"backbone {name!r} gives no feature map (B, {backbone.num_features}, h, w) {given} "
            f"but {shape}: choose {EXAMPLES}"
        )
    if shape[2] < num_parts:
        raise ValueError(
            f"num_parts={num_parts}: the map that backbone {name!r} gives {given} has only "
            f"{shape[2]} rows; use fewer parts, larger images or last_stride 1"
        )


def remove_last_stride(backbone: Any, name: str) -> None:
    """Sets the strides of the last stage to 1 without dilation (timm's output_stride dilates).

    Raises:
        ValueError: The backbone has no strided last stage.
    """
    info = getattr(backbone, "feature_info", None)
    stage = backbone.get_submodule(info[-1]["module"]) if info else None
    strided = [
        module
        for module in (stage.modules() if stage is not None else [])
        if isinstance(module, (nn.Conv2d, nn.AvgPool2d)) and module.stride in (2, (2, 2))
    ]
    if not strided:
        raise ValueError(
            f"last_stride=1: backbone {name!r} has no strided last stage to open; set last_stride "
            "to 2, which leaves the backbone as it is"
        )
    for module in strided:
        if isinstance(module, nn.AvgPool2d):  # the shortcut of resnet*d: nothing left to average
            module.kernel_size, module.stride = 1, 1
        else:
            module.stride = (1, 1)
