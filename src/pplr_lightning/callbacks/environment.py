"""What a run was made with: versions, machine, numbers of images. Nothing of who ran it."""

from __future__ import annotations

import platform
from datetime import datetime, timezone
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Trainer

from pplr_lightning.data import PPLRDataModule

FILE = "environment.json"
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
