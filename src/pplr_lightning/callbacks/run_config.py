"""Keeping the options of a run."""

from __future__ import annotations

import json

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.cli import SaveConfigCallback

from pplr_lightning.callbacks.run_folder import run_folder


class RunConfig(SaveConfigCallback):
    """Writes all options, resolved, as `config.yaml` into the run's folder and to every logger.

    Lightning's own writes the file alone, and under loggers that name only a common folder
    (Weights & Biases) over that of the last run.
    """

    def save_config(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Writes and logs; called on rank 0."""
        options = json.loads(self.parser.dump(self.config, format="json", skip_none=False))
        for logger in trainer.loggers:
            logger.log_hyperparams(options)
        folder = run_folder(trainer)  # which some loggers know only now
        folder.mkdir(parents=True, exist_ok=True)
        file = str(folder / self.config_filename)
        self.parser.save(self.config, file, skip_none=False, overwrite=True)
