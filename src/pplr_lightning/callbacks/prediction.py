"""Writing the features that `predict` computes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, cast

import torch
import torch.distributed as dist
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import BasePredictionWriter
from lightning.pytorch.utilities import rank_zero_info
from torch import Tensor
from torch.utils.data import DataLoader

from pplr_lightning.callbacks.interruption import Interrupted
from pplr_lightning.callbacks.shared import run_folder
from pplr_lightning.data.images import BadImageError, EvalImages, read_image
from pplr_lightning.distributed import all_gather_list, gather_rows, new_waiting_group
from pplr_lightning.methods.base import ReIDModule

if TYPE_CHECKING:  # of the gallery's files pyarrow is loaded when one is written
    from pplr_lightning.gallery.embedding_parts import EmbeddingParts


class FeatureWriter(BasePredictionWriter):
    """Writes `embeddings.parquet` into the run's folder: the images with their test features.

    Read it with `pplr_lightning.read_embeddings`, pandas or anything that reads parquet.
    Rank 0 gathers the shares of all ranks.
    """

    def __init__(self) -> None:
        super().__init__(write_interval="epoch")

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Checks before images are embedded that the file can hold the images' paths.

        Raises:
            ValueError: It cannot.
        """
        super().setup(trainer, pl_module, stage)
        splits = getattr(getattr(trainer, "datamodule", None), "splits", None)
        if stage == "predict" and splits is not None:
            from pplr_lightning.gallery.embeddings import check_names

            check_names(splits.query + splits.gallery or splits.train)

    def write_on_epoch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        predictions: Sequence[Any],
        batch_indices: Sequence[Any],
    ) -> None:
        """Gathers and writes, in the order of the data set."""
        from pplr_lightning.gallery.embeddings import write_embeddings

        group = new_waiting_group()
        indices, features = (
            gather_rows(torch.cat(column).cpu(), group) for column in zip(*predictions, strict=True)
        )
        if not trainer.is_global_zero:
            return
        order = cast(Tensor, indices).argsort()
        images = cast(EvalImages, cast(DataLoader[Any], trainer.predict_dataloaders).dataset)
        samples = [images.samples[index] for index in cast(Tensor, indices)[order].tolist()]
        path = run_folder(trainer) / "embeddings.parquet"
        module = cast(ReIDModule, pl_module)
        fingerprint = module.fingerprint(kind=module.predict_kind)
        write_embeddings(path, samples, cast(Tensor, features)[order], fingerprint)
        rank_zero_info(f"{len(samples)} embeddings are in {path}")


class PartWriter(BasePredictionWriter):
    """Writes each batch to disk when it is done, and when all are done, one file of them.

    Args:
        parts: Where to.
    """

    def __init__(self, parts: EmbeddingParts) -> None:
        super().__init__(write_interval="batch")
        self.parts = parts
        self._group: dist.ProcessGroup | None = None

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Makes the group in which ranks wait for the slowest.

        Raises:
            ValueError: Another process is writing the same parts; all ranks raise it.
        """
        super().setup(trainer, pl_module, stage)
        self._group = new_waiting_group()
        failed: list[ValueError] = []
        if trainer.is_global_zero:
            try:
                self.parts.lock()
            except ValueError as error:
                failed = [error]
        if failed := all_gather_list(failed):
            raise failed[0]

    def write_on_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        prediction: Any,
        batch_indices: Sequence[int] | None,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int,
    ) -> None:
        """Writes a block of images; leaves after SIGTERM."""
        indices, features = prediction
        self.parts.write(indices.cpu().numpy(), features.float().cpu().numpy())
        if trainer.received_sigterm:
            raise Interrupted(None, trainer.global_rank)

    def on_exception(
        self, trainer: Trainer, pl_module: LightningModule, exception: BaseException
    ) -> None:
        """Lets another run go on."""
        self.parts.unlock()

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Joins the parts on rank 0 and names the images that could not be read.

        Not at the end of the loop: Lightning skips that on a rank that had nothing to do.
        """
        if self._group is not None:
            dist.barrier(self._group)
        if not trainer.is_global_zero:
            return
        try:
            left_out = self.parts.merge()
        finally:
            self.parts.unlock()
        embedded = len(self.parts.samples) - len(left_out)
        print(f"{embedded:,} images are embedded in {self.parts.path}")
        if left_out:
            print(f"left out ({len(left_out):,}):")
        for path in left_out:
            print(f"  {_reason(path)}")


def _reason(path: str) -> str:
    try:
        read_image(path)
    except BadImageError as error:
        return str(error)
    except OSError:  # gone by now
        pass
    return f"{path}: could not be read when its turn came"
