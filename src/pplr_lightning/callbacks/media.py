"""Pictures and histograms for the loggers that take them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from lightning.pytorch.loggers import Logger, TensorBoardLogger, WandbLogger
from PIL import Image
from torch import Tensor


def log_picture(logger: Logger, name: str, path: Path, *, caption: str, step: int) -> None:
    """Hands a PNG to Weights & Biases or TensorBoard as `figures/<name>`; others take none."""
    if isinstance(logger, WandbLogger):
        logger.log_image(f"figures/{name}", [str(path)], step=step, caption=[caption])
    elif isinstance(logger, TensorBoardLogger):
        with Image.open(path) as image:
            pixels = np.asarray(image.convert("RGB"))
        logger.experiment.add_image(f"figures/{name}", pixels, step, dataformats="HWC")


def log_histogram(logger: Logger, name: str, values: Tensor, *, step: int) -> None:
    """Hands values (N,) to Weights & Biases or TensorBoard; others take no histograms."""
    if isinstance(logger, WandbLogger):
        import wandb

        histogram = wandb.Histogram(values.tolist())
        logger.log_metrics({f"histograms/{name}": histogram}, step)  # type: ignore[dict-item]
    elif isinstance(logger, TensorBoardLogger):
        logger.experiment.add_histogram(f"histograms/{name}", values, step)
