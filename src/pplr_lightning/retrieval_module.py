"""What every module here shares: the model, how it starts, its optimiser, its evaluation."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable
from typing import Any, cast

import numpy as np
import torch
from lightning.pytorch import LightningModule
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities import rank_zero_info, rank_zero_warn
from torch import Tensor

from pplr_lightning.backbone_weights import load_backbone_weights
from pplr_lightning.checkpoints import check_weights, reopen_last_epoch
from pplr_lightning.data import EvalBatch, PPLRDataModule
from pplr_lightning.data.transforms import Preprocessing
from pplr_lightning.distributed import consecutive_group
from pplr_lightning.embedding import ImageLike, embed_images
from pplr_lightning.extraction import FeatureKind, join_features, unit_features
from pplr_lightning.layouts import load_weights, read_weights
from pplr_lightning.models import PartModel, average_running_statistics, share_groups
from pplr_lightning.models.compilation import check_compiler
from pplr_lightning.models.shared_norm import ranks_per_group
from pplr_lightning.recipe import Recipe, checksum
from pplr_lightning.step_watch import StepWatch, has_scaler


class RetrievalModule(LightningModule):
    """Base of the modules: a `PartModel` that embeds query and gallery images.

    Args:
        model: The part-based model.
        pretrained: Start from timm's published backbone weights.
        backbone_weights: Start from this file of backbone weights instead, another project's.
        warm_start: Start from this checkpoint instead, of any module here or of a project that
            `read_weights` knows; the classifiers are left out.
        lr: Learning rate of Adam, above 0.
        weight_decay: Weight decay of Adam, 0 or above.
        lr_step: Epochs after which the learning rate is multiplied by `lr_gamma`, 1 or more.
        lr_gamma: That factor, above 0.

    Attributes:
        preprocessing: What images go through before the model sees them: that of the data module
            last worked with, or else of the checkpoint; None where neither says.
        predict_kind: Which features `predict_step` gives, as of `join_features`.

    Raises:
        ValueError: There are two files to start from, or an option is out of range.
    """

    def __init__(
        self,
        model: PartModel,
        *,
        pretrained: bool,
        backbone_weights: str | None,
        warm_start: str | None,
        lr: float,
        weight_decay: float,
        lr_step: int,
        lr_gamma: float,
    ) -> None:
        if backbone_weights is not None and warm_start is not None:
            raise ValueError(
                f"backbone_weights={backbone_weights} and warm_start={warm_start}: give one of them"
            )
        for name, value in (("lr", lr), ("lr_gamma", lr_gamma)):
            if not 0 < value < math.inf:
                raise ValueError(f"{name}={value}: must be finite and above 0")
        if not 0 <= weight_decay < math.inf:
            raise ValueError(f"weight_decay={weight_decay}: must be finite and not negative")
        if lr_step < 1:
            raise ValueError(f"lr_step={lr_step}: must be at least 1")
        super().__init__()
        self.model = model
        self.pretrained = pretrained
        self.backbone_weights = backbone_weights
        self.warm_start = warm_start
        self.lr = lr
        self.weight_decay = weight_decay
        self.lr_step = lr_step
        self.lr_gamma = lr_gamma
        self.preprocessing: Preprocessing | None = None
        self.predict_kind: FeatureKind = "global"
        self.losses: dict[str, Tensor] = {}  # of this step, the sum and its parts
        self.step_started = 0.0  # clock at this step's begin, after what callbacks do before it
        self._watch = StepWatch()
        self._has_weights = False  # loaded or trained: not to be overwritten by another start

    @property
    def uses_cameras(self) -> bool:
        """Tells whether a loss needs camera proxies; `PseudoLabeling` then makes them."""
        return False

    def setup(self, stage: str) -> None:
        """Loads the weights to start from, unless a checkpoint is about to be restored.

        Raises:
            ValueError: A configuration that cannot run on this many processes, or weights that do
                not fit the model; or the model is to be compiled where there is no compiler.
        """
        data = getattr(self._trainer, "datamodule", None)
        if isinstance(data, PPLRDataModule):
            self.preprocessing = data.preprocessing
        if stage == "fit":
            self._watch = StepWatch()
            self._check_batches()
            if self.model.is_compiled:
                check_compiler(self.trainer.strategy.root_device)
        if self._has_weights or self.trainer.ckpt_path is not None:
            return
        self._has_weights = True
        if self.warm_start is not None:
            load_weights(self.model, read_weights(self.warm_start), classifiers=False)
        elif self.backbone_weights is not None:
            rank_zero_info(load_backbone_weights(self.model.backbone, self.backbone_weights))
        elif self.pretrained:
            self.model.load_pretrained_backbone()
            self._check_normalisation()

    def _check_normalisation(self) -> None:
        """Warns of images in another normalisation than those of the published weights."""
        data = getattr(self.trainer, "datamodule", None)
        if not isinstance(data, PPLRDataModule):
            return
        weights = cast(dict[str, Any], self.model.backbone.pretrained_cfg)
        mean, std = tuple(weights["mean"]), tuple(weights["std"])
        if (mean, std) != (tuple(data.mean), tuple(data.std)):
            rank_zero_warn(
                f"the pretrained weights of {self.model.backbone_name} were trained on images of "
                f"data.mean={mean} and data.std={std}; here these are {tuple(data.mean)} and "
                f"{tuple(data.std)}"
            )

    def teardown(self, stage: str) -> None:
        """Lets go of the ranks, which another run may not have."""
        share_groups(self.model, None)

    def _check_batches(self) -> None:
        """Refuses what would change the statistics or the triplets of a global batch."""
        if self.trainer.accumulate_grad_batches != 1:
            raise ValueError(
                f"accumulate_grad_batches={self.trainer.accumulate_grad_batches}: the triplet loss "
                "compares all images of a batch at once; use 1, and model.chunk_size to save memory"
            )
        data = getattr(self.trainer, "datamodule", None)
        if isinstance(data, PPLRDataModule):
            ranks = ranks_per_group(
                data.batch_size, self.model.norm_batch_size, self.trainer.world_size
            )
            share_groups(self.model, consecutive_group(ranks) if ranks > 1 else None)

    def branches(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Embeds images (B, 3, H, W) as L2-normalised global (B, D) and part features (B, D, P)."""
        return unit_features(self.model(images))

    def forward(self, images: Tensor) -> Tensor:
        """Embeds images (B, 3, H, W) as L2-normalised global features (B, D), which PPLR tests."""
        return self.branches(images)[0]

    def embed(
        self,
        images: ImageLike | Iterable[ImageLike],
        *,
        kind: FeatureKind = "global",
        image_size: tuple[int, int] | None = None,
        batch_size: int = 128,
    ) -> Tensor:
        """Embeds images as they are; needs no Trainer.

        They are prepared as those of the evaluation in training were, and embedded in evaluation
        mode on the module's device.

        Args:
            images: Files, PIL images or tensors (uint8, or floating-point in [0, 1]; 3 x H x W or
                H x W x 3).
            kind: Which features, as of `join_features`.
            image_size: Height and width to resize them to, instead of those of the training.
            batch_size: Images at a time, 1 or more.

        Returns:
            L2-normalised float32 vectors on the CPU, (N, D).

        Raises:
            ValueError: A file or a tensor is no image, nothing says what size they are to have, or
                `batch_size` is below 1.
        """
        prepared = self.prepared(image_size)
        return embed_images(self.model, images, prepared, kind=kind, batch_size=batch_size)

    def prepared(self, image_size: tuple[int, int] | None = None) -> Preprocessing:
        """Returns `preprocessing`, with another image size where one is given.

        Raises:
            ValueError: Nothing says what size images are to have.
        """
        if self.preprocessing is None and image_size is None:
            raise ValueError(
                "the checkpoint does not say for what images the model was trained (it is an older "
                "one, or made without a PPLRDataModule): give their image_size, (height, width)"
            )
        if image_size is None:
            return cast(Preprocessing, self.preprocessing)
        size = (image_size[0], image_size[1])
        return (self.preprocessing or Preprocessing(size))._replace(image_size=size)

    def recipe(
        self, *, kind: FeatureKind = "global", image_size: tuple[int, int] | None = None
    ) -> Recipe:
        """Tells what the vectors of `embed` are made with."""
        return Recipe(checksum(self.model), kind, self.prepared(image_size))

    def gather(self, rows: Tensor) -> Tensor:
        """Concatenates the (B, ...) rows of all ranks, with gradients.

        DDP averages gradients over ranks and this gathering's backward sums them: together they
        give the gradient of a loss over the global batch that every rank computes whole.
        """
        if self.trainer.world_size == 1:
            return rows
        gathered = cast(Tensor, self.all_gather(rows, sync_grads=rows.requires_grad))
        return gathered.flatten(0, 1)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Notes what images go through, for those who embed others with these weights.

        Raises:
            FloatingPointError: The last step was not finite; no checkpoint is written of it.
        """
        self._watch.check(self._trainer)
        if self.preprocessing is not None:
            checkpoint["preprocessing"] = self.preprocessing._asdict()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Checks a checkpoint and notes that the weights are its.

        Raises:
            ValueError: It is another model's, or weights alone where training is to go on.
        """
        if self.strict_loading:
            check_weights(checkpoint["state_dict"], self.state_dict())
        self._has_weights = True
        if self.preprocessing is None and "preprocessing" in checkpoint:
            self.preprocessing = Preprocessing(**checkpoint["preprocessing"])
        if self._trainer is None or self.trainer.state.fn != TrainerFn.FITTING:
            return
        if "optimizer_states" not in checkpoint:
            raise ValueError(
                "the checkpoint holds weights alone, from which training cannot go on: start from "
                "it with model.warm_start"
            )
        every = self.trainer.check_val_every_n_epoch
        validates = self.trainer.enable_validation and (
            every is None or (checkpoint["epoch"] + 1) % every == 0
        )
        reopen_last_epoch(checkpoint, validates=validates)

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        """Seeds what the network itself draws (dropout, stochastic depth) for this step.

        So there is no state of a generator that a run which goes on would have to find again.
        """
        self.step_started = time.perf_counter()
        data = getattr(self.trainer, "datamodule", None)
        seed = data.seed if isinstance(data, PPLRDataModule) else 0
        key = (seed, self.current_epoch, batch_idx, self.global_rank)
        torch.manual_seed(int(np.random.SeedSequence(key).generate_state(1)[0]))

    def on_after_backward(self) -> None:
        """Gives all ranks the running statistics of the global batch, before any checkpoint."""
        average_running_statistics(self.model)

    def log_losses(self, losses: dict[str, Tensor], batch_size: int) -> None:
        """Logs the loss and its parts as `train/<name>`; they are checked before the weights move.

        Args:
            losses: Scalars by name; those of this rank.
            batch_size: Images behind them.
        """
        self.losses = {f"train/{name}": value.detach() for name, value in losses.items()}
        # Not for the bar, for which Lightning would make the host wait in every step.
        self.log_dict(self.losses, sync_dist=True, batch_size=batch_size)

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        """Keeps a gradient that is not finite from the weights, and stops the run on it.

        Raises:
            FloatingPointError: With epoch, step and the part of the loss that broke.
        """
        self._watch.before_step(self, optimizer, self.losses)

    def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Checks an epoch's last step with it."""
        if self.trainer.is_last_batch:
            self._watch.check(self._trainer)

    def on_validation_start(self) -> None:
        """Checks the last step before its statistics are used."""
        self._watch.check(self._trainer)

    def on_train_end(self) -> None:
        """Checks the last step of all."""
        self._watch.check(self._trainer)

    def validation_step(self, batch: EvalBatch, batch_idx: int) -> dict[str, Tensor]:
        """Returns what `RetrievalEvaluation` makes its `test_features` of."""
        features, part_features = self.branches(batch.images)
        return {"features": features, "part_features": part_features}

    test_step = validation_step

    def predict_step(self, batch: EvalBatch, batch_idx: int) -> tuple[Tensor, Tensor]:
        """Returns the images' indices (B,) and features (B, D), `predict_kind` of them."""
        return batch.indices, join_features(*self.branches(batch.images), self.predict_kind)

    def configure_optimizers(self) -> Any:
        """Builds Adam, on a GPU the fused one, with a step schedule; override it for another."""
        parameters = [parameter for parameter in self.parameters() if parameter.requires_grad]
        # Not with a gradient scaler: Lightning then could not clip gradients.
        scaled = self._trainer is not None and has_scaler(self.trainer)
        fused = self.device.type == "cuda" and not scaled
        optimizer = torch.optim.Adam(
            parameters, lr=self.lr, weight_decay=self.weight_decay, fused=fused or None
        )
        scheduler = torch.optim.lr_scheduler.StepLR(optimizer, self.lr_step, self.lr_gamma)
        return {"optimizer": optimizer, "lr_scheduler": scheduler}
