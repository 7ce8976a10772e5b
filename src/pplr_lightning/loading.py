"""Modules from the checkpoints of runs, for what comes after training."""

from __future__ import annotations

from pathlib import Path

from pplr_lightning.checkpoints import read_checkpoint
from pplr_lightning.module import PPLRModule
from pplr_lightning.retrieval_module import RetrievalModule
from pplr_lightning.simclr import SimCLRModule


def load_module(path: str | Path) -> RetrievalModule:
    """Builds the module that a checkpoint was made of, on the CPU, from what the checkpoint says.

    Unlike Lightning's `load_from_checkpoint` it calls nothing that the file may name, and it finds
    the class itself.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It is no checkpoint of a module of this library, or holds more than tensors and
            values.
    """
    checkpoint = read_checkpoint(path)
    weights = checkpoint["state_dict"]
    of_simclr = any(name.startswith("projector.") for name in weights)
    options = {
        name: value
        for name, value in checkpoint.get("hyper_parameters", {}).items()
        if not name.startswith("_")  # Lightning's own
    }
    try:
        module = SimCLRModule(**options) if of_simclr else PPLRModule(**options)
        module.on_load_checkpoint(checkpoint)
        module.load_state_dict(weights)
    except (TypeError, ValueError) as error:  # options of another version, weights that do not fit
        raise ValueError(f"{path}: {error}") from error
    return module
