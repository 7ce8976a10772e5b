"""`convert`: published checkpoints to this library's, and this library's to PPLR's authors'."""

from __future__ import annotations

import argparse
from pathlib import Path

from lightning.fabric.plugins.environments import LightningEnvironment
from lightning.pytorch import Trainer

from pplr_lightning.methods.pplr import PPLRModule
from pplr_lightning.weights.checkpoints import WholeCheckpointIO
from pplr_lightning.weights.layouts import read_weights, to_official


def run(args: list[str]) -> Path:
    """Writes what `input` holds in the other layout; which one that is, `input` tells.

    Returns:
        The file written.
    """
    options = _parse(args)
    if options.output.exists():
        raise ValueError(f"{options.output} is there already: name another file or remove it")
    weights = read_weights(options.input)
    if weights.project is None:
        WholeCheckpointIO().save_checkpoint(to_official(weights), options.output)
        print(f"{options.output}: in the layout of PPLR's authors")
    else:
        module = PPLRModule.load_official(options.input, network={"backbone": options.backbone})
        _save(module, options.output)
        print(
            f"{options.output}: a checkpoint of this library, for --ckpt_path and network.weights"
        )
    return options.output


def _save(module: PPLRModule, path: Path) -> None:
    """Writes the module's weights and options as Lightning does after a training."""
    trainer = Trainer(
        accelerator="cpu",
        devices=1,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        plugins=[WholeCheckpointIO(), LightningEnvironment()],  # not a job's, should it run in one
    )
    trainer.strategy.connect(module)
    trainer.save_checkpoint(path, weights_only=True)


def _parse(args: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser("python -m pplr_lightning convert", description=__doc__)
    parser.add_argument(
        "input",
        type=Path,
        help="best.pth of PPLR's authors, a checkpoint of Cluster Contrast, SpCL or OpenUnReID, or "
        "one of this library, which is written as the authors' best.pth",
    )
    parser.add_argument("output", type=Path, help="the file to write; must not be there yet")
    parser.add_argument(
        "--backbone",
        default="resnet50.tv_in1k",
        help="timm's name of the ResNet in another project's checkpoint (default: %(default)s)",
    )
    return parser.parse_args(args)
