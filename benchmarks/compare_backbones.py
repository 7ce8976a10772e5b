"""Backbones here beside the code of the projects whose weights they take, with the same weights.

    git clone https://github.com/KaiyangZhou/deep-person-reid FOLDER/deep-person-reid  # and so on
    OMP_NUM_THREADS=1 python benchmarks/compare_backbones.py FOLDER

Each project's model is built by its own code with random weights, saved as its training saves it,
and loaded here as `model.network.weights` is. Printed is the largest difference between the maps or
class tokens of random images, as a share of the largest value. A project that is not in the folder
is left out. This runs the projects' code.
"""

from __future__ import annotations

import argparse
import collections.abc
import importlib.util
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from pplr_lightning.networks.backbone import create_backbone, read_map
from pplr_lightning.weights.backbone_weights import load_backbone_weights

NORMS = (nn.BatchNorm2d, nn.InstanceNorm2d, nn.LayerNorm)


class Comparison(NamedTuple):
    """A project's model beside ours.

    Attributes:
        clone: Folder of the project.
        file: Within it, that has the model.
        backbone: Ours.
        build: Makes the model of the file's module.
        compute: Makes its map, or its class token, of the model and images.
        image_size: Of the images.
        prefix: Before the model's names in a file.
        is_single: The project's code computes in float32 alone.
    """

    clone: str
    file: str
    backbone: str
    build: Callable[[Any], nn.Module]
    compute: Callable[[Any, Tensor], Tensor]
    image_size: tuple[int, int] = (256, 128)
    prefix: str = ""
    is_single: bool = False


def resnet_map(model: Any, images: Tensor) -> Tensor:
    """Runs a ResNet of torchvision's names up to its map."""
    x = model.maxpool(model.relu(model.bn1(model.conv1(images))))
    return model.layer4(model.layer3(model.layer2(model.layer1(x))))


def clip_tokens(model: Any, images: Tensor) -> Tensor:
    """Runs CLIP's image encoder up to the class token behind the last norm."""
    patches = model.conv1(images).flatten(2).transpose(1, 2)
    first = model.class_embedding.expand(len(images), 1, -1)
    tokens = model.ln_pre(torch.cat([first, patches], dim=1) + model.positional_embedding)
    return model.ln_post(model.transformer(tokens.transpose(0, 1))[0])


def solider_map(model: Any, images: Tensor) -> Tensor:
    """Runs SOLIDER at the semantic weight of re-identification."""
    weight = torch.tensor([[0.2, 0.8]], dtype=images.dtype).expand(len(images), 2)
    return model(images, weight)[1][-1]


def transreid(width: str, *, stem: bool = False) -> Callable[[Any], nn.Module]:
    """Builds a ViT of TransReID's code for images of 256 x 128."""
    options: dict[str, Any] = {"img_size": (256, 128), "drop_path_rate": 0.0}
    options |= {"stem_conv": True} if stem else {}
    return lambda module: getattr(module, f"vit_{width}_patch16_224_TransReID")(**options)


def whole(model: Any, images: Tensor) -> Tensor:
    """Runs a model that gives the class token, or tokens of which it is the first."""
    output = model(images)
    output = output[0] if isinstance(output, (tuple, list)) else output
    return output[:, 0] if output.ndim == 3 else output


COMPARISONS = [
    *(
        Comparison(
            "deep-person-reid",
            "torchreid/models/osnet.py",
            name,
            lambda module, name=name: getattr(module, name)(pretrained=False),
            lambda model, images: model.featuremaps(images),
            prefix="module.",
        )
        for name in ("osnet_x1_0", "osnet_x0_75", "osnet_x0_5", "osnet_x0_25", "osnet_ibn_x1_0")
    ),
    *(
        Comparison(
            "IBN-Net",
            "ibnnet/resnet_ibn.py",
            name,
            lambda module, name=name: getattr(module, name)(),
            resnet_map,
        )
        for name in ("resnet50_ibn_a", "resnet101_ibn_a")
    ),
    *(
        Comparison(
            "TransReID-SSL",
            "transreid_pytorch/model/backbones/vit_pytorch.py",
            name,
            transreid(width, stem=stem),
            whole,
            prefix="teacher.backbone.",
        )
        for name, width, stem in (
            ("vit_small_patch16_224", "small", False),
            ("vit_small_ics", "small", True),
            ("vit_base_ics", "base", True),
        )
    ),
    Comparison(
        "PASS-reID",
        "PASS_transreid/model/backbones/vit_pytorch.py",
        "vit_small_pass",
        transreid("small"),
        whole,
        prefix="teacher.backbone.",
    ),
    *(
        Comparison(
            "SOLIDER",
            "swin_transformer.py",
            "swin_tiny_solider",
            lambda module: module.swin_tiny_patch4_window7_224(semantic_weight=0.2),
            solider_map,
            image_size=size,
            prefix="teacher.backbone.",
        )
        for size in ((224, 224), (448, 224), (384, 128))
    ),
    Comparison(
        "CLIP",
        "clip/model.py",
        "vit_base_patch16_clip_quickgelu_224",
        lambda module: module.VisionTransformer(224, 16, 768, 12, 12, 512),
        clip_tokens,
        image_size=(224, 224),
        prefix="visual.",
        is_single=True,
    ),
]


def import_file(file: Path) -> ModuleType:
    """Imports a file of a project without what the project itself needs and the model does not."""
    stubs = {"torch._six": {"container_abcs": collections.abc}, "cv2": {}, "mmcv": {}}
    stubs["mmcv.runner"] = {"load_checkpoint": None}
    for name, values in stubs.items():
        if name not in sys.modules:
            sys.modules[name] = ModuleType(name)
            vars(sys.modules[name]).update(values)
    package = file.parent.name  # for what it imports of its own folder
    sys.modules[package] = ModuleType(package)
    sys.modules[package].__path__ = [str(file.parent)]
    spec = importlib.util.spec_from_file_location(f"{package}.{file.stem}", file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@torch.no_grad()
def randomise(model: nn.Module) -> None:
    """Gives a model weights of which none is one or zero."""
    for parameter in model.parameters():
        if parameter.ndim == 1 or parameter.ndim == 3 or not parameter.any():
            parameter.normal_(std=0.1)
    for module in model.modules():
        if isinstance(module, NORMS):
            module.weight.uniform_(0.5, 1.5)
        if isinstance(module, nn.BatchNorm2d) and isinstance(module.running_var, Tensor):
            module.running_var.uniform_(0.5, 2)


@torch.no_grad()
def difference(comparison: Comparison, folder: Path, *, training: bool = False) -> float:
    """Returns the largest difference, as a share of the largest value."""
    torch.manual_seed(0)
    theirs = comparison.build(import_file(folder / comparison.clone / comparison.file))
    randomise(theirs)
    ours = create_backbone(comparison.backbone, comparison.image_size)
    names = {f"{comparison.prefix}{name}": t for name, t in theirs.state_dict().items()}
    with tempfile.NamedTemporaryFile(suffix=".pth") as file:
        torch.save(names, file.name)
        load_backbone_weights(ours, file.name)
    images = torch.randn(4, 3, *comparison.image_size)
    theirs.train(training)
    expected = comparison.compute(theirs, images)
    feature_map, token = read_map(ours.train(training), images)
    found = feature_map if expected.ndim == 4 or token is None else token
    return float((found - expected).abs().max() / expected.abs().max())


def main(args: Sequence[str] | None = None) -> None:
    """Prints a row for each backbone."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("folder", type=Path, help="has the projects' repositories")
    parser.add_argument("--double", action="store_true", help="compute in float64")
    options = parser.parse_args(args)
    torch.set_default_dtype(torch.float64 if options.double else torch.float32)
    print("| backbone | project | images | evaluation | training |\n|---|---|---|---|---|")
    for one in COMPARISONS:
        if not (options.folder / one.clone / one.file).is_file():
            print(f"| `{one.backbone}` | {one.clone}: not in {options.folder} | | | |")
            continue
        if one.is_single and options.double:
            continue
        found = [difference(one, options.folder, training=mode) for mode in (False, True)]
        size = f"{one.image_size[0]} x {one.image_size[1]}"
        print(f"| `{one.backbone}` | {one.clone} | {size} | {found[0]:.1e} | {found[1]:.1e} |")
    torch.set_default_dtype(torch.float32)


if __name__ == "__main__":
    main()
