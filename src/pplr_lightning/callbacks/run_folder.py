"""Where a run keeps its files."""

from __future__ import annotations

from pathlib import Path

from lightning.pytorch import Trainer


def run_folder(trainer: Trainer) -> Path:
    """Returns the folder of this run, the one that holds `checkpoints`.

    Unlike `Trainer.log_dir` it is no collective, so that rank 0 can ask alone, and it is the run's
    own also under loggers that name only a common one (Weights & Biases).
    """
    logger = trainer.logger
    if logger is None:
        return Path(trainer.default_root_dir)
    if logger.log_dir is not None:
        return Path(logger.log_dir)
    return Path(logger.save_dir or trainer.default_root_dir, str(logger.name), str(logger.version))
