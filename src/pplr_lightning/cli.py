"""The command line: Lightning's subcommands, and the dispatcher of our own."""

from __future__ import annotations

import importlib
import sys
import traceback
import warnings
from pathlib import Path
from typing import Any

from lightning.pytorch import LightningModule
from lightning.pytorch.cli import ArgsType, LightningArgumentParser, LightningCLI
from lightning.pytorch.utilities.exceptions import MisconfigurationException

from pplr_lightning.callbacks import FeatureWriter, PseudoLabeling, RetrievalEvaluation
from pplr_lightning.data import PPLRDataModule
from pplr_lightning.module import PPLRModule

COMPLAINTS = (ValueError, FileNotFoundError, ImportError, MisconfigurationException)
COMMANDS = ("demo", "pretrain")  # each a module of `commands` with a function `run`


class PPLRCLI(LightningCLI):
    """`LightningCLI` with the sections `pseudo_labels` and `evaluation`, and one seed for all."""

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Adds the section of the evaluation and links the seed."""
        parser.add_lightning_class_args(RetrievalEvaluation, "evaluation")
        parser.link_arguments("seed_everything", "data.seed", compute_fn=int)

    def before_instantiate_classes(self) -> None:
        """Checks what would else come out only after the data are read."""
        config = self.config[self.subcommand]
        for name, path in (
            ("ckpt_path", config.get("ckpt_path")),
            ("warm_start", config.model.get("warm_start")),
        ):
            if path not in (None, "best", "last", "hpc") and not Path(path).is_file():
                raise FileNotFoundError(f"{name} {path}: no such checkpoint")


class TrainingCLI(PPLRCLI):
    """The command line of `PPLRModule`, which needs labels every epoch."""

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Adds the section of the label stage."""
        super().add_arguments_to_parser(parser)
        parser.add_lightning_class_args(PseudoLabeling, "pseudo_labels")


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
        save_config_kwargs={"overwrite": True},
        trainer_defaults={"callbacks": [FeatureWriter()]},
    )


def main(args: list[str] | None = None) -> Any:
    """Runs `python -m pplr_lightning ARGS`.

    A complaint that this library raised is a message to the user: one line, exit code 1. Any other
    error keeps its traceback.
    """
    words = sys.argv[1:] if args is None else args
    try:
        if words and words[0] in COMMANDS:
            command = importlib.import_module(f"{__package__}.commands.{words[0]}")
            return command.run(words[1:])
        return run_cli(args)
    except COMPLAINTS as error:
        if not _raised_here(error):
            raise
        print(f"error: {error}", file=sys.stderr)
        sys.exit(1)


def _raised_here(error: Exception) -> bool:
    frames = list(traceback.walk_tb(error.__traceback__))
    return str(frames[-1][0].f_globals.get("__name__")).startswith(f"{__package__}.")
