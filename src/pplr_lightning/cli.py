"""The command line: Lightning's subcommands, and the dispatcher of our own."""

from __future__ import annotations

import argparse
import errno
import importlib
import shlex
import sys
import traceback
import warnings
from pathlib import Path
from typing import Any

from lightning.fabric.plugins import CheckpointIO
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.cli import ArgsType, LightningArgumentParser, LightningCLI
from lightning.pytorch.utilities import rank_zero_info, rank_zero_warn
from lightning.pytorch.utilities.exceptions import MisconfigurationException, SIGTERMException

from pplr_lightning.backbone_weights import read_tensors
from pplr_lightning.callbacks import (
    FeatureWriter,
    Figures,
    Interrupted,
    Interruption,
    PseudoLabeling,
    RetrievalEvaluation,
    RunRecord,
)
from pplr_lightning.callbacks.run_config import RunConfig
from pplr_lightning.checkpoints import WholeCheckpointIO, newest_checkpoint, read_checkpoint
from pplr_lightning.data import PPLRDataModule
from pplr_lightning.data.images import BadImageError
from pplr_lightning.layouts import read_weights
from pplr_lightning.module import PPLRModule

COMPLAINTS = (ValueError, OSError, ImportError, FloatingPointError, MisconfigurationException)
# What is wrong with a place that the user named.
DISK = (
    errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOSPC, errno.EDQUOT, errno.ENOTDIR,
    errno.EISDIR, errno.EEXIST, errno.ENOTEMPTY, errno.ENAMETOOLONG,
)  # fmt: skip
# Each a module of `commands` with a function `run`.
COMMANDS = {
    "demo": "random weights, warm start and PPLR on drawn people, in minutes on a CPU",
    "pretrain": "train a warm start without labels (SimCLR)",
    "report": "write a run's folder as one page, or two runs side by side",
    "predict": "embed the images of a folder",
    "index": "make embeddings a gallery, or change one",
    "search": "find the images of a gallery that are most like a query",
    "serve": "search a gallery on a page in the browser",
    "export": "write a model as ONNX or torch.export program, compared with it",
    "convert": "read published checkpoints, or write one for the authors' code",
}
LIGHTNING_COMMANDS = {
    "fit": "train on images without identities (PPLR)",
    "validate": "mAP and CMC of a checkpoint, or of the weights to start from",
    "test": "the same, logged as test/",
}


class PPLRCLI(LightningCLI):
    """`LightningCLI` with the sections `pseudo_labels`, `evaluation` and `record`, and one seed."""

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Adds the sections of evaluation and record; links the seed and the image size."""
        parser.add_lightning_class_args(RetrievalEvaluation, "evaluation")
        parser.add_lightning_class_args(RunRecord, "record")
        parser.link_arguments("seed_everything", "data.seed", compute_fn=_data_seed)
        parser.link_arguments("data.image_size", "model.image_size")

    def before_instantiate_classes(self) -> None:
        """Checks what would else come out only after the data are read."""
        config = self.config[self.subcommand]
        warm_start, weights = config.model.get("warm_start"), config.model.get("backbone_weights")
        if warm_start is not None:
            read_weights(warm_start, mmap=True)
        if weights is not None:
            read_tensors(weights, mmap=True)
        checkpoint = config.get("ckpt_path")
        if checkpoint not in (None, "best", "last", "hpc"):
            read_checkpoint(checkpoint, mmap=True)

    def _parse_ckpt_path(self) -> None:
        """Does nothing: the options given count.

        Lightning 2.6 would put the options of the model that the checkpoint was made with in their
        place, without a word.
        """

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        """Builds the Trainer, with `WholeCheckpointIO` where the config names no other."""
        plugins = self.config_init[self.subcommand].trainer.get("plugins") or []
        plugins = list(plugins) if isinstance(plugins, (list, tuple)) else [plugins]
        if not any(isinstance(plugin, CheckpointIO) for plugin in plugins):
            plugins.append(WholeCheckpointIO())
        return super().instantiate_trainer(plugins=plugins, **kwargs)

    def after_instantiate_classes(self) -> None:
        """Finds the checkpoint that `--ckpt_path last` means.

        Lightning looks into this run's own folder, where a run that goes on has none yet.
        """
        config = self.config_init[self.subcommand]
        if config.get("ckpt_path") != "last":
            return
        config["ckpt_path"] = newest = newest_checkpoint(self.trainer)
        if newest is not None:
            rank_zero_info(f"--ckpt_path last: takes {newest}")
            read_checkpoint(newest, mmap=True)
        elif self.subcommand == "fit":  # so that a job which restarts by itself needs no other line
            rank_zero_warn("--ckpt_path last: there is no checkpoint yet, training starts anew")
        else:
            raise FileNotFoundError(
                "--ckpt_path last: there is no checkpoint of a run of this name"
            )


class TrainingCLI(PPLRCLI):
    """The command line of `PPLRModule`, which needs labels every epoch."""

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Adds the sections of the label stage and of the figures."""
        super().add_arguments_to_parser(parser)
        parser.add_lightning_class_args(PseudoLabeling, "pseudo_labels")
        parser.add_lightning_class_args(Figures, "figures")


def run_cli(
    args: ArgsType = None,
    *,
    cli: type[PPLRCLI] = TrainingCLI,
    module: type[LightningModule] = PPLRModule,
) -> PPLRCLI:
    """Parses `args` (those of the process when None), runs the subcommand, returns the CLI."""
    # Lightning warns of arguments given from Python while the process has some of its own.
    warnings.filterwarnings("ignore", message="LightningCLI's args parameter")
    return cli(
        module,
        PPLRDataModule,
        args=args,
        seed_everything_default=0,
        parser_kwargs={"parser_mode": "omegaconf+", "prog": "python -m pplr_lightning"},
        save_config_callback=RunConfig,
        save_config_kwargs={"save_to_log_dir": False},
        trainer_defaults={"callbacks": [FeatureWriter(), Interruption()]},
    )


def main(args: list[str] | None = None) -> Any:
    """Runs `python -m pplr_lightning ARGS`.

    A complaint that this library raised is a message to the user, and so is what Lightning says of
    its options (MisconfigurationException): one line, exit code 1. Any other error keeps its
    traceback.
    """
    words = sys.argv[1:] if args is None else args
    _check_command(words)
    try:
        if words and words[0] in COMMANDS:
            command = importlib.import_module(f"{__package__}.commands.{words[0]}")
            return command.run(words[1:])
        return run_cli(args)
    except SIGTERMException as stop:
        if not isinstance(stop, Interrupted) or stop.rank == 0:
            print(_how_to_go_on(words, getattr(stop, "checkpoint", None)), file=sys.stderr)
        raise
    except COMPLAINTS as error:
        if isinstance(error, BadImageError):  # of a loader's worker: it comes with a traceback
            error = BadImageError(str(error).rsplit(f"{BadImageError.__name__}: ")[-1].strip())
        elif not (
            isinstance(error, MisconfigurationException)
            or _raised_here(error)
            or getattr(error, "errno", None) in DISK
        ):
            raise
        print(f"error: {error}", file=sys.stderr)
        sys.exit(1)


def _data_seed(seed: bool | int) -> int:
    """Takes the seed of the command line for the data.

    Raises:
        ValueError: Lightning, which would say so in a traceback, does not take it.
    """
    if not 0 <= seed < 2**32:
        raise ValueError(f"seed_everything={seed}: must lie in [0, {2**32 - 1}]")
    return int(seed)


def _check_command(words: list[str]) -> None:
    """Ends with an overview of the commands where it is asked for or where none of them is given.

    Another option that comes first, such as `--config`, is Lightning's to read.
    """
    known = LIGHTNING_COMMANDS | COMMANDS
    first = words[0] if words else ""
    if first in known or (first.startswith("-") and first not in ("-h", "--help")):
        return
    parser = argparse.ArgumentParser(
        "python -m pplr_lightning",
        description="Unsupervised person re-identification by part-based pseudo label refinement.",
        epilog="COMMAND --help lists the options of a command.",
    )
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    for name, summary in known.items():
        commands.add_parser(name, help=summary, add_help=False)
    parser.parse_args(words[:1])


def _how_to_go_on(words: list[str], checkpoint: Path | None) -> str:
    """Names the checkpoint and the command of a run that SIGTERM ended."""
    if checkpoint is None or words[0] not in ("fit", "pretrain"):
        command = shlex.join(["python", "-m", "pplr_lightning", *words])
        state = "what is embedded is kept" if words[0] == "predict" else "nothing was trained yet"
        saved = state if checkpoint is None else f"saved {checkpoint}"
        return f"stopped by SIGTERM; {saved}. Start again (under the same launcher) with\n{command}"
    kept = [
        word
        for previous, word in zip(["", *words], words, strict=False)
        if "--ckpt_path" not in (previous, word) and not word.startswith("--ckpt_path=")
    ]
    command = shlex.join(["python", "-m", "pplr_lightning", *kept, f"--ckpt_path={checkpoint}"])
    return (
        f"stopped by SIGTERM; saved {checkpoint}. Go on (under the same launcher) with\n{command}"
    )


def _raised_here(error: Exception) -> bool:
    frames = list(traceback.walk_tb(error.__traceback__))
    return str(frames[-1][0].f_globals.get("__name__")).startswith(f"{__package__}.")
