"""What a run was made with: versions, machine, numbers of images. Nothing of who ran it."""

from __future__ import annotations

import inspect
import platform
from datetime import datetime, timezone
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Trainer

from pplr_lightning.data import PPLRDataModule
from pplr_lightning.methods.base import ReIDModule

FILE = "environment.json"
CONFIG = "config.yaml"
SECTIONS = {"pseudo_labels": "PseudoLabeling", "evaluation": "RetrievalEvaluation"}
PACKAGES = (
    "torch", "torchvision", "lightning", "torchmetrics", "timm", "numpy", "scipy", "numba",
    "faiss-cpu", "faiss-gpu",
)  # fmt: skip


def describe_environment(trainer: Trainer) -> dict[str, dict[str, Any]]:
    """Tells versions, hardware and data of a run in plain values."""
    from pplr_lightning import __version__  # of a package that imports this module

    device = trainer.strategy.root_device
    hardware: dict[str, Any] = {
        "processes": trainer.world_size,
        "nodes": trainer.num_nodes,
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
        "cpu": cpu_name(),
        "threads per process": torch.get_num_threads(),
        "precision": str(trainer.precision),
        "system": f"{platform.system()} {platform.machine()}",
    }
    versions = {"pplr-lightning": __version__, "python": platform.python_version()}
    versions |= {name: found for name in PACKAGES if (found := _version(name))}
    return {
        "run": {"started": f"{datetime.now(timezone.utc):%Y-%m-%d %H:%M} UTC"},
        "data": _describe_data(getattr(trainer, "datamodule", None)),
        "hardware": hardware,
        "versions": versions,
    }


def describe_options(trainer: Trainer, module: ReIDModule) -> dict[str, Any]:
    """Tells the options of a run that a script of one's own made, as a config file names them.

    What an object does not keep of what it was made with is left out.
    """
    own = {name: value for name, value in module.options.items() if name != "method"}
    options: dict[str, Any] = {
        "trainer": {"max_epochs": trainer.max_epochs, "precision": str(trainer.precision)},
        "model": {"class_path": _path_of(type(module)), "init_args": _plain(own)},
        "layer_decay": module.layer_decay,
    }
    data = getattr(trainer, "datamodule", None)
    if isinstance(data, PPLRDataModule):
        options["data"] = _options_of(data)["init_args"]
    for name in ("optimizer", "lr_scheduler"):
        made = getattr(module, name)
        if isinstance(made, partial):
            init_args = {n: _plain(value) for n, value in made.keywords.items()}
            options[name] = {"class_path": _path_of(made.func), "init_args": init_args}
    for name in ("pseudo_labels", "evaluation"):
        for callback in trainer.callbacks:  # type: ignore[attr-defined]
            if type(callback).__name__ == SECTIONS[name]:
                options[name] = _options_of(callback)["init_args"]
    return options


def _path_of(kind: Any) -> str:
    return f"{kind.__module__}.{kind.__qualname__}"


def _options_of(made: Any) -> dict[str, Any]:
    """Tells an object's class, and of its arguments those that it keeps under their names."""
    names = [n for n in inspect.signature(type(made).__init__).parameters if hasattr(made, n)]
    init_args = {name: _plain(getattr(made, name)) for name in names}
    return {"class_path": _path_of(type(made)), "init_args": init_args}


def _plain(value: Any) -> Any:
    """Turns an option into plain values."""
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, dict):
        return {str(name): _plain(inner) for name, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(inner) for inner in value]
    return _options_of(value)


def cpu_name(table: Path = Path("/proc/cpuinfo")) -> str:
    """Returns the processor's name, as far as the system tells."""
    if table.is_file():
        for line in table.read_text(errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _describe_data(data: Any) -> dict[str, Any]:
    if not isinstance(data, PPLRDataModule) or data.splits is None:
        return {}
    train = data.splits.train
    persons = {sample.person_id for sample in train} - {-1}
    cameras = {sample.camera_id for sample in train} - {-1}
    return {
        "data set": type(data.dataset).__name__,
        "training images": len(train),
        "identities known of training images": len(persons) or "none",
        "cameras known of training images": len(cameras) or "none",
        "query images": len(data.splits.query),
        "gallery images": len(data.splits.gallery),
    }
