"""Writing the features that `predict` computes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import BasePredictionWriter
from lightning.pytorch.utilities import rank_zero_info
from torch import Tensor
from torch.utils.data import DataLoader

from pplr_lightning.callbacks.run_folder import run_folder
from pplr_lightning.data.images import EvalImages
from pplr_lightning.distributed import gather_rows, new_patient_group


class FeatureWriter(BasePredictionWriter):
    """Writes `features.pt` into the run's folder: `paths` (N) and L2-normalised `features` (N, D).

    Read it with `torch.load(path, weights_only=True)`. Rank 0 gathers the shares of all ranks.
    """

    def __init__(self) -> None:
        super().__init__(write_interval="epoch")

    def write_on_epoch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        predictions: Sequence[Any],
        batch_indices: Sequence[Any],
    ) -> None:
        """Gathers and writes, in the order of the data set."""
        group = new_patient_group()
        indices, features = (
            gather_rows(torch.cat(column).cpu(), group) for column in zip(*predictions, strict=True)
        )
        if not trainer.is_global_zero:
            return
        order = cast(Tensor, indices).argsort()
        images = cast(EvalImages, cast(DataLoader[Any], trainer.predict_dataloaders).dataset)
        folder = run_folder(trainer)
        folder.mkdir(parents=True, exist_ok=True)
        paths = [images.samples[index].path for index in cast(Tensor, indices)[order].tolist()]
        torch.save(
            {"paths": paths, "features": cast(Tensor, features)[order]}, folder / "features.pt"
        )
        rank_zero_info(f"{len(paths)} features are in {folder / 'features.pt'}")
