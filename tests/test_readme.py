"""The README's Python blocks run as they stand, on data and sizes made small."""

from __future__ import annotations

import re
import shutil

import pytest
import torch
import torch.nn.functional as nnf
from lightning.pytorch import Trainer
from PIL import Image

import pplr_lightning
from pplr_lightning import PPLRModule
from pplr_lightning import data as pplr_data
from pplr_lightning.data import Sample
from pplr_lightning.gallery.embeddings import write_embeddings

from .conftest import ROOT

BLOCKS = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), flags=re.DOTALL)


class _Overridden:
    """Calls `real` with some options replaced."""

    def __init__(self, real, options):
        self.real, self.options = real, options

    def __call__(self, *args, **given):
        return self.real(*args, **{**given, **self.options})


@pytest.fixture
def block():
    return lambda word: next(text for text in BLOCKS if word in text)


def test_own_script(block, drawn, tmp_path, monkeypatch):
    script = block("Trainer(")
    assert len([line for line in script.splitlines() if line.strip()]) < 15
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(pplr_data, "Market1501", lambda _: pplr_data.MarketLayout(drawn))
    small = {
        "PPLRModule": {"pretrained": False, "backbone": "resnet10t", "norm_batch_size": 8},
        "PPLRDataModule": {
            "image_size": (64, 32), "batch_size": 16, "iterations": 2, "num_workers": 0,
        },
        "PseudoLabeling": {"k1": 6, "k2": 2, "agreement_k": 4, "eps": 0.6, "min_samples": 2},
    }  # fmt: skip
    for name, options in small.items():
        made = _Overridden(getattr(pplr_lightning, name), options)
        monkeypatch.setattr(pplr_lightning, name, made)
    short = {"max_epochs": 1, "check_val_every_n_epoch": 1, "accelerator": "cpu", "logger": False}
    monkeypatch.setattr("lightning.pytorch.Trainer", lambda **given: Trainer(**{**given, **short}))
    scope: dict[str, object] = {}
    exec(script, scope)
    trainer = scope["trainer"]
    assert trainer.global_step == 2
    assert {"val/mAP", "labels/clusters"} <= set(trainer.callback_metrics)


def test_sharing(block, trained, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shutil.copy(trained / "checkpoints/last.ckpt", tmp_path)
    shutil.copytree(trained, tmp_path / "runs/market1501/version_0")
    scope: dict[str, object] = {}
    exec(block("save_pretrained"), scope)
    images = torch.randn(2, 3, 64, 32)
    assert torch.equal(scope["module"].eval()(images), scope["again"](images))
    assert "license: cc-by-nc-4.0" in (tmp_path / "my-model/README.md").read_text()


def test_functions(block):
    torch.manual_seed(0)
    scope = {
        "features": nnf.normalize(torch.randn(60, 8), dim=1),
        "part_features": nnf.normalize(torch.randn(60, 8, 3), dim=1),
    }
    exec(block("F.jaccard_distance"), scope)
    assert scope["labels"].shape == (60,)
    assert scope["agreement"].shape == (60, 3)


def test_search(block, tiny_checkpoint, drawn, tmp_path, monkeypatch):
    pytest.importorskip("faiss")
    monkeypatch.chdir(tmp_path)
    shutil.copy(tiny_checkpoint, "last.ckpt")
    paths = sorted((drawn / "bounding_box_test").glob("0*.png"))[:12]
    made = PPLRModule.load_from_checkpoint("last.ckpt")
    samples = [Sample(str(path), -1, -1) for path in paths]
    write_embeddings("embeddings.parquet", samples, made.embed(paths), made.recipe())
    Image.open(paths[4]).save("someone.jpg", quality=100, subsampling=0)
    scope: dict[str, object] = {}
    exec(block("Gallery.build"), scope)
    assert len(scope["images"]) == 10
    assert scope["images"][0].path == str(paths[4])
