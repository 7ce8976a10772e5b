"""Lightning's own commands, `fit`, `validate` and `test`, with this library's sections."""

from __future__ import annotations

import json
import os
import re
import sys
import warnings
from functools import partial
from typing import Any

import yaml
from jsonargparse import Namespace
from lightning.fabric.plugins import CheckpointIO
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.cli import (
    ArgsType,
    LightningArgumentParser,
    LightningCLI,
    LRSchedulerCallable,
    OptimizerCallable,
    SaveConfigCallback,
)
from lightning.pytorch.utilities import rank_zero_info, rank_zero_warn

from pplr_lightning.atomic_write import clear_left_over, write_whole
from pplr_lightning.callbacks import (
    FeatureWriter,
    Figures,
    Interruption,
    PseudoLabeling,
    RetrievalEvaluation,
    RunRecord,
)
from pplr_lightning.callbacks.shared import find, run_folder
from pplr_lightning.commands.all_splits import over_all_splits
from pplr_lightning.commands.config_files import check_configs, check_nulls
from pplr_lightning.commands.environment_values import note_environment, without_environment
from pplr_lightning.commands.parser import OneLineParser
from pplr_lightning.data import PPLRDataModule
from pplr_lightning.data.random_splits import SplitDataset
from pplr_lightning.functional.checks import check_image_size
from pplr_lightning.lightning_internals import KeepsGivenOptions
from pplr_lightning.methods import PPLRModule, ReIDModule
from pplr_lightning.methods.base import check_trainer
from pplr_lightning.weights.checkpoints import (
    WholeCheckpointIO,
    newest_checkpoint,
    read_checkpoint,
    written_folders,
)

MOST = 10**9  # of any whole number of the Trainer's options


class RunConfig(SaveConfigCallback):
    """Writes all options, resolved, as `config.yaml` into the run's folder and to every logger.

    But for what they took from the environment, such as a key: it is named, and not told.

    Lightning's own writes the file alone, and under loggers that name only a common folder
    (Weights & Biases) over that of the last run.
    """

    def save_config(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Writes and logs; called on rank 0."""
        dumped = self.parser.dump(self.config, format="json", skip_none=False)
        options = without_environment(json.loads(dumped))
        for logger in trainer.loggers:
            logger.log_hyperparams(options)
        folder = run_folder(trainer)  # which some loggers know only now
        text = yaml.safe_dump(options, sort_keys=False, allow_unicode=True)
        write_whole(folder / self.config_filename, text)


class PPLRCLI(KeepsGivenOptions, LightningCLI):
    """`LightningCLI` of any method, with the sections of labels, evaluation, record and figures.

    `optimizer` and `lr_scheduler` take the place of the method's published ones, each by itself.
    """

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Adds the sections; links the seed and the image size."""
        for kind, section in (
            (PseudoLabeling, "pseudo_labels"),
            (RetrievalEvaluation, "evaluation"),
            (RunRecord, "record"),
            (Figures, "figures"),
        ):
            parser.add_lightning_class_args(kind, section)
        parser.add_argument(
            "--optimizer",
            type=OptimizerCallable | None,
            help="class and options; the method's published one when null",
        )
        parser.add_argument(
            "--lr_scheduler",
            type=LRSchedulerCallable | None,
            help="class and options, likewise; stepped once an epoch",
        )
        parser.add_argument(
            "--layer_decay",
            type=float,
            default=1.0,
            help="share of the learning rate that a layer of the backbone has of the one above it",
        )
        parser.set_defaults({"model": {"class_path": f"{PPLRModule.__module__}.PPLRModule"}})
        parser.set_defaults({"pseudo_labels.labeler": {"class_path": "DBSCAN"}})
        parser.link_arguments("seed_everything", "data.seed", compute_fn=_data_seed)
        parser.link_arguments("data.image_size", "model.init_args.network.init_args.image_size")

    def before_instantiate_classes(self) -> None:
        """Checks what would else come out only after the data are read, or from within a class."""
        check_nulls(self.config[self.subcommand])
        check_image_size("data.image_size", self.config[self.subcommand].data.image_size)
        checkpoint = self.config[self.subcommand].get("ckpt_path")
        if checkpoint not in (None, "best", "last", "hpc"):
            read_checkpoint(checkpoint, mmap=True)

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        """Builds the Trainer, with `WholeCheckpointIO` where the config names no other."""
        check_numbers(self.config_init[self.subcommand].trainer)
        plugins = self.config_init[self.subcommand].trainer.get("plugins") or []
        plugins = list(plugins) if isinstance(plugins, (list, tuple)) else [plugins]
        if not any(isinstance(plugin, CheckpointIO) for plugin in plugins):
            plugins.append(WholeCheckpointIO())
        trainer = super().instantiate_trainer(plugins=plugins, **kwargs)
        check_processes(trainer)
        return trainer

    def after_instantiate_classes(self) -> None:
        """Hands optimiser and schedule to the method; finds what `--ckpt_path last` means.

        Lightning looks into this run's own folder, where a run that goes on has none yet.
        """
        config = self.config_init[self.subcommand]
        self.model.optimizer = config.optimizer or self.model.optimizer
        self.model.lr_scheduler = config.lr_scheduler or self.model.lr_scheduler
        self.model.layer_decay = config.layer_decay
        for network in self.model.all_networks:  # whose options the checkpoints hold
            network.options = without_environment(network.options)
        self.model.configure_optimizers()  # so that it complains before the data are read
        check_trainer(self.trainer)  # likewise
        labeling = find(self.trainer, PseudoLabeling)
        if labeling is not None and self.subcommand == "fit":
            labeling.check_files()
        self._record_defaults()
        interval, steps = self.trainer.val_check_interval, self.datamodule.iterations
        by_epoch = self.trainer.check_val_every_n_epoch is not None
        if isinstance(interval, int) and interval > steps and by_epoch:  # Lightning says so late
            raise ValueError(
                f"trainer.val_check_interval={interval}: an epoch has {steps} steps "
                "(data.iterations); lower it, or count steps of the whole run by "
                "trainer.check_val_every_n_epoch=null"
            )
        if config.get("ckpt_path") != "last":
            return
        for folder in written_folders(self.trainer) if self.trainer.is_global_zero else ():
            clear_left_over(folder)
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

    def before_fit(self) -> None:
        """Says what is trained."""
        count = sum(parameter.numel() for parameter in self.model.parameters())
        rank_zero_info(f"{type(self.model).__name__} of {count / 1e6:.1f} million parameters")

    def test(self, **options: Any) -> None:
        """Tests, on every split where the data set is asked for all of them."""
        dataset = self.datamodule.dataset
        if isinstance(dataset, SplitDataset) and dataset.split == "all":
            over_all_splits(self.trainer, **options)
        else:
            self.trainer.test(**options)

    def _record_defaults(self) -> None:
        """Has `config.yaml` name the network, optimiser and schedule that the method brought."""
        config = self.config[self.subcommand]
        if config.model.init_args.get("network") is None:
            config.model.init_args["network"] = self.model.options["network"]
        for name in ("optimizer", "lr_scheduler"):
            made = getattr(self.model, name)
            if config.get(name) is None and isinstance(made, partial):
                path = f"{made.func.__module__}.{made.func.__qualname__}"
                config[name] = Namespace(class_path=path, init_args=Namespace(made.keywords))


def check_numbers(options: Namespace) -> None:
    """Checks what Lightning would make lists of, or count into numbers of 64 bits.

    Raises:
        ValueError: An option of the Trainer is above `MOST`.
    """
    for name, value in options.items():
        # Lightning reads devices from a text, too.
        if re.fullmatch(r"\d+", str(value)) and int(value) > MOST:
            raise ValueError(f"trainer.{name}={value}: must be at most {MOST:,}; lower it")


def check_processes(trainer: Trainer) -> None:
    """Checks that a machine's processors can be asked for as many processes.

    Lightning does so for GPUs; on the CPU it would start any number of them.

    Raises:
        ValueError: There are too many.
    """
    most = max(8, os.cpu_count() or 1)
    if trainer.strategy.root_device.type == "cpu" and trainer.num_devices > most:
        raise ValueError(
            f"trainer.devices={trainer.num_devices}: at most {most} processes on this machine's "
            "CPU; lower trainer.devices"
        )


def run_cli(args: ArgsType = None) -> PPLRCLI:
    """Parses `args` (those of the process when None), runs the subcommand, returns the CLI."""
    if args is None or isinstance(args, list):
        note_environment()
        args = _with_nulls(sys.argv[1:] if args is None else args)
        check_configs(args)
    # Lightning warns of arguments given from Python while the process has some of its own.
    warnings.filterwarnings("ignore", message="LightningCLI's args parameter")
    return PPLRCLI(
        ReIDModule,
        PPLRDataModule,
        parser_class=OneLineParser,
        subclass_mode_model=True,
        auto_configure_optimizers=False,
        args=args,
        seed_everything_default=0,
        parser_kwargs={"parser_mode": "omegaconf+", "prog": "python -m pplr_lightning"},
        save_config_callback=RunConfig,
        save_config_kwargs={"save_to_log_dir": False},
        trainer_defaults={
            "callbacks": [FeatureWriter(), Interruption()],
            "enable_model_summary": False,  # with its FLOPs, which are 0 without an example
        },
    )


def _with_nulls(words: list[str]) -> list[str]:
    """Writes a null for an option of the network as JSON.

    jsonargparse 4.53 hands an option of a class within a class on as text, a null as "None".
    """
    option = r"^--model\.(?:init_args\.)?network\.(?:init_args\.)?(\w+)[=\n]null$"
    json = r'--model.init_args.network={"init_args":{"\1":null}}'
    return re.sub(option, json, "\n".join(words), flags=re.MULTILINE).split("\n")


def _data_seed(seed: bool | int) -> int:
    """Takes the seed of the command line for the data.

    Raises:
        ValueError: Lightning, which would say so in a traceback, does not take it.
    """
    if not 0 <= seed < 2**32:
        raise ValueError(f"seed_everything={seed}: must lie in [0, {2**32 - 1}]")
    return int(seed)
