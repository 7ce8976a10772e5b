"""`export`: the test feature of a run's model as an ONNX file or a program of torch.export."""

from __future__ import annotations

import argparse
import inspect
from pathlib import Path
from typing import Any

from pplr_lightning.checkpoints import read_checkpoint
from pplr_lightning.data.transforms import Preprocessing
from pplr_lightning.export import SUFFIXES, check_destination, export_module
from pplr_lightning.loading import load_module
from pplr_lightning.module import PPLRModule


def run(args: list[str]) -> float:
    """Exports a checkpoint's model, with the options that it was trained with.

    Returns:
        The largest difference between the file's features and the module's.
    """
    options = _parse(args)
    check_destination(options.out, options.format)
    checkpoint = read_checkpoint(options.ckpt_path, mmap=True)
    _check_module(checkpoint.get("hyper_parameters", {}), options.ckpt_path)
    saved = checkpoint.get("preprocessing", {})
    image_size = options.image_size or saved.get("image_size")
    if image_size is None:
        raise ValueError(
            f"{options.ckpt_path}: does not say which images the model was trained on; give their "
            "height and width, as in --image_size 384 128"
        )
    height, width = image_size
    if min(height, width) < 1:
        raise ValueError(f"--image_size {height} {width}: give height and width in pixels")
    module = load_module(options.ckpt_path)
    difference = export_module(
        module,
        options.out,
        format=options.format,
        preprocessing=Preprocessing(**{**saved, "image_size": (height, width)}),
    )
    print(
        f"{options.out}: images (batch, 3, {height}, {width}) -> L2-normalised features (batch, "
        f"{module.model.num_features}); the largest difference from the module on random and on "
        f"drawn images is {difference:.1e}"
    )
    return difference


def _check_module(hyper_parameters: dict[str, Any], path: Path) -> None:
    """Refuses another module's checkpoint, whose options Lightning would leave out in silence."""
    own = inspect.signature(PPLRModule.__init__).parameters
    strange = [name for name in hyper_parameters if name not in own and not name.startswith("_")]
    if strange or not hyper_parameters:
        options = f"has the options {', '.join(strange)}" if strange else "names no options"
        raise ValueError(f"{path}: no checkpoint of PPLRModule, it {options}; give one of `fit`")


def _parse(args: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser("python -m pplr_lightning export", description=__doc__)
    parser.add_argument("--ckpt_path", type=Path, required=True, help="checkpoint of a `fit`")
    parser.add_argument("--format", choices=list(SUFFIXES), required=True)
    parser.add_argument("--out", type=Path, required=True, help="the file, *.onnx or *.pt2")
    parser.add_argument(
        "--image_size",
        type=int,
        nargs=2,
        metavar=("HEIGHT", "WIDTH"),
        help="to resize images to; by default what the model was trained on",
    )
    return parser.parse_args(args)
