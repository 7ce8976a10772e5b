"""`export`: the test feature of a run's model as a file that other programs run."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import get_args

from pplr_lightning.functional.checks import check_image_size
from pplr_lightning.methods import ReIDModule
from pplr_lightning.sharing.exporter import SUFFIXES, Input, check_destination, export_network


def run(args: list[str]) -> float:
    """Exports a checkpoint's model, with the options that it was trained with.

    Returns:
        The largest difference between the file's features and the module's.
    """
    options = _parse(args)
    check_destination(options.out, options.format)
    if options.image_size is not None:
        check_image_size("--image_size", options.image_size)
    module = ReIDModule.load_from_checkpoint(options.ckpt_path)
    prepared = module.prepared(options.image_size)
    height, width = prepared.image_size
    difference = export_network(
        module.network,
        options.out,
        format=options.format,
        preprocessing=prepared,
        input=options.input,
        half=options.half,
    )
    print(
        f"{options.out}: images (batch, 3, {height}, {width}) -> L2-normalised features (batch, "
        f"{module.network.num_features}); the largest difference from the module on random and on "
        f"drawn images is {difference:.1e}"
    )
    return difference


def _parse(args: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser("python -m pplr_lightning export", description=__doc__)
    parser.add_argument("--ckpt_path", type=Path, required=True, help="checkpoint of a `fit`")
    parser.add_argument("--format", choices=list(SUFFIXES), required=True)
    parser.add_argument(
        "--out",
        type=Path,
        required=True,
        help=f"the file, {' or '.join(f'*{suffix}' for suffix in SUFFIXES.values())}",
    )
    parser.add_argument(
        "--input",
        choices=get_args(Input),
        default="own",
        help="what the file takes: RGB images normalised as in training (own), in [0, 1] (unit), "
        "or normalised by ImageNet's mean and deviation (imagenet); the rest is done in the file "
        "(default: own)",
    )
    parser.add_argument(
        "--half",
        action="store_true",
        help="float16: half the size; of use on a GPU, slower on most CPUs",
    )
    parser.add_argument(
        "--image_size",
        type=int,
        nargs=2,
        metavar=("HEIGHT", "WIDTH"),
        help="to resize images to; by default what the model was trained on",
    )
    return parser.parse_args(args)
