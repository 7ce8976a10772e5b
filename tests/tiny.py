"""Checkpoints of a tiny module, as a training leaves them, and embeddings without a model."""

from __future__ import annotations

from pathlib import Path

import torch
from lightning.pytorch import Trainer
from torch import Tensor
from torch.nn.functional import normalize

from pplr_lightning import PPLRModule
from pplr_lightning.data import Sample
from pplr_lightning.data.transforms import Preprocessing
from pplr_lightning.evaluation.fingerprint import Fingerprint
from pplr_lightning.gallery.embeddings import Embeddings, items_table
from pplr_lightning.methods import ReIDModule
from pplr_lightning.networks import PartNetwork

FINGERPRINT = RECIPE = Fingerprint("0123456789abcdef", "global", Preprocessing((64, 32)))


def module(seed: int = 0) -> PPLRModule:
    """A module of random weights, with running statistics of its own."""
    torch.manual_seed(seed)
    made = PPLRModule(PartNetwork("test_resnet", weights=None, num_parts=2), max_clusters=8)
    made.preprocessing = Preprocessing((64, 32))
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # another number may round the statistics differently
    made.network(torch.randn(32, 3, 64, 32))
    torch.set_num_threads(threads)
    return made.eval()


def save(made: ReIDModule, path: Path) -> Path:
    """Writes a module as the Trainer does."""
    trainer = Trainer(accelerator="cpu", logger=False, enable_checkpointing=False)
    trainer.strategy.connect(made)
    trainer.save_checkpoint(path, weights_only=True)
    return path


def vectors(images: int, *, seed: int = 0, dimension: int = 16) -> Tensor:
    """Random vectors (N, D) around N / 10 centres."""
    generator = torch.Generator().manual_seed(seed)
    centres = torch.randn(max(images // 10, 1), dimension, generator=generator)
    noise = torch.randn(images, dimension, generator=generator)
    return normalize(centres.repeat(11, 1)[:images] + 0.5 * noise, dim=1)


def embeddings(
    rows: Tensor, *, prefix: str = "a", fingerprint: Fingerprint = FINGERPRINT
) -> Embeddings:
    """Vectors (N, D) of images `a/0.jpg`, ... of persons 0, 1, ... and cameras not known."""
    samples = [Sample(f"{prefix}/{number}.jpg", number, -1) for number in range(len(rows))]
    return Embeddings(rows.numpy(), items_table(samples), fingerprint)
