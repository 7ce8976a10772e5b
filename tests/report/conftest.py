from __future__ import annotations

import json
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import yaml
from PIL import Image

from pplr_lightning.report.history import write_history
from pplr_lightning.report.reading import Run

CONFIG = {
    "trainer": {"max_epochs": 3, "callbacks": [{"class_path": "a.B"}, {"class_path": "c.D"}]},
    "model": {
        "class_path": "pplr_lightning.PPLRModule",
        "init_args": {
            "network": {
                "class_path": "pplr_lightning.networks.PartNetwork",
                "init_args": {"backbone": "resnet10t", "weights": "pretrained", "num_parts": 2},
            },
            "max_clusters": 600, "beta": 0.5, "camera_weight": 0.0,
        },
    },
    "data": {
        "dataset": {"class_path": "pplr_lightning.data.Market1501", "init_args": {"root": "data"}},
        "batch_size": 64, "instances": 4, "use_cameras": False, "image_size": [64, 32],
    },
    "pseudo_labels": {
        "labeler": {
            "class_path": "pplr_lightning.labelers.DBSCAN",
            "init_args": {"k1": 20, "eps": 0.45, "min_samples": 4},
        },
        "backend": "auto",
    },
    "optimizer": {"class_path": "torch.optim.Adam", "init_args": {"lr": 2e-4}},
    "lr_scheduler": {
        "class_path": "torch.optim.lr_scheduler.StepLR", "init_args": {"step_size": 4},
    },
}  # fmt: skip
ENVIRONMENT = {
    "data": {
        "data set": "Market1501",
        "training images": 1000,
        "identities known of training images": 75,
        "cameras known of training images": 6,
        "query images": 100,
        "gallery images": 400,
    },
    "hardware": {"processes": 2, "device": "cpu", "cpu": "Some CPU", "precision": "32-true"},
    "versions": {"torch": "2.4.0"},
}


def options(**values: Any) -> dict[str, Any]:
    """Copies the options with others in place; `model__network__weights` as users type dots.

    A word for a class makes it one without options.
    """
    config = deepcopy(CONFIG)
    for path, value in values.items():
        *sections, name = path.split("__")
        place: dict[str, Any] = config
        for section in sections:
            place = place[section]
            place = place.get("init_args", place)
        if isinstance(place.get(name), dict) and isinstance(value, str):
            value = {"class_path": value}
        place[name] = value
    return config


def epoch(number: int, **values: float) -> dict[str, float]:
    """A finished epoch's row; a name's first underscore stands for the slash."""
    named = {
        name.replace("_", "/", 1) if "_" in name else name: value for name, value in values.items()
    }
    return {
        "epoch": float(number), "finished": 1.0, "iterations": 10.0, "step": 10.0 * (number + 1),
        "lr": 2e-4, "train/loss": 6.0 - number, "train/loss_pglr": 2.0,
        "labels/clusters": 70.0 + number, "labels/outliers": 0.3, "labels/agreement_mean": 0.4,
        "labels/ari": 0.7, "labels/precision": 0.6, "labels/recall": 0.8,
        "time/extraction": 4.0, "time/clustering": 1.0, "time/training": 20.0, **named,
    }  # fmt: skip


def evaluated(value: float) -> dict[str, float]:
    """An evaluation's part of a row."""
    names = {"mAP": 0.0, "mINP": -0.1, "rank-1": 0.2, "rank-5": 0.3, "rank-10": 0.31}
    return {f"val/{name}": value + more for name, more in names.items()}


def history() -> list[dict[str, float]]:
    """Three epochs, evaluated before training and after the second and third."""
    return [
        {"epoch": -1.0, **evaluated(0.2), "time/evaluation": 5.0},
        epoch(0),
        {**epoch(1), **evaluated(0.5), "time/evaluation": 5.0},
        {**epoch(2), **evaluated(0.49), "time/evaluation": 5.0},
    ]


@pytest.fixture
def make_run() -> Callable[..., Run]:
    """Makes a `Run` of the history, options and environment above, or of others."""

    def make(**values: Any) -> Run:
        given = {"rows": history(), "config": CONFIG, "environment": ENVIRONMENT}
        return Run(name="demo/one", **{**given, **values})

    return make


@pytest.fixture
def make_folder(tmp_path: Path) -> Callable[..., Path]:
    """Writes a run's folder; what is None is left out."""

    def make(
        name: str = "demo/version_0",
        rows: list[dict[str, float]] | None = None,
        config: dict | None = CONFIG,
        environment: dict | None = ENVIRONMENT,
        figures: tuple[str, ...] = (),
    ) -> Path:
        folder = tmp_path / name
        (folder / "figures").mkdir(parents=True)
        write_history(folder / "history.csv", history() if rows is None else rows)
        if config is not None:
            (folder / "config.yaml").write_text(yaml.safe_dump(config, sort_keys=False))
        if environment is not None:
            (folder / "environment.json").write_text(json.dumps(environment))
        for figure in figures:
            Image.new("RGB", (2, 2)).save(folder / "figures" / figure)
        return folder

    return make
