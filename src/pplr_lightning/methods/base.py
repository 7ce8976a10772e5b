"""The loop that all methods share: how they start, embed, step, are evaluated and saved."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from functools import partial
from typing import Any, cast

import numpy as np
import torch
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import GradientAccumulationScheduler
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau, StepLR

from pplr_lightning.data import EvalBatch, PPLRDataModule, Sample, TrainBatch
from pplr_lightning.distributed import consecutive_group
from pplr_lightning.evaluation.extraction import (
    FeatureKind,
    extract_features,
    join_features,
)
from pplr_lightning.labelers.space import Space
from pplr_lightning.lightning_internals import has_scaler, reopen_last_epoch, trainer_of
from pplr_lightning.methods.embedder import Embedder
from pplr_lightning.methods.nan_guard import NaNGuard
from pplr_lightning.methods.parameter_groups import TIMES, layer_groups, scale_rates
from pplr_lightning.networks import PartNetwork, average_running_statistics, share_groups
from pplr_lightning.networks.compilation import check_compiler
from pplr_lightning.networks.part_network import PRETRAINED
from pplr_lightning.networks.shared_batch_norm import ranks_per_group


class ReIDModule(Embedder):
    """Base of the methods: a network, and the loop around its training.

    A method gives `training_step` and, where it needs them, the hooks `begin_epoch` and
    `end_step`; `max_classes` where it cannot train on any number of them. What it keeps from step
    to step are parameters, buffers or extra state, which checkpoints hold.

    Args:
        network: Embeds the images; the one that is tested. Methods with mean teachers test one of
            these, and train networks beside it.

    Attributes:
        optimizer: Makes the optimiser of parameters; the method's published one. The command
            line's section `optimizer` takes its place.
        lr_scheduler: Makes the schedule of the optimiser, likewise (`lr_scheduler`); None for none.
        layer_decay: Share of the learning rate that each layer of the backbone has of the one above
            it, in (0, 1]; the command line's option of this name.
        predict_kind: Which features `predict_step` gives, as of `join_features`.
    """

    def __init__(self, network: PartNetwork) -> None:
        super().__init__(network)
        self.optimizer: Callable[..., torch.optim.Optimizer] = partial(
            torch.optim.Adam, lr=3.5e-4, weight_decay=5e-4
        )
        self.lr_scheduler: Callable[..., LRScheduler | ReduceLROnPlateau] | None = partial(
            StepLR, step_size=20, gamma=0.1
        )
        self.layer_decay = 1.0
        self.predict_kind: FeatureKind = "global"
        self.losses: dict[str, Tensor] = {}  # of this step, the sum and its parts
        self.step_started = 0.0  # clock at this step's begin, after what callbacks do before it
        self._guard = NaNGuard()
        self._batch: Any = None  # of this step

    # What a method may define.

    takes_soft_labels = False  # whether its losses are of `label_targets`
    keeps_images = False  # whether it keeps a row for each image, and so needs their own labels

    @property
    def max_classes(self) -> int | None:
        """The most classes that can be trained on; None for any number."""
        return None

    @property
    def num_neighbors(self) -> int:
        """Nearest neighbours of each image, itself included, that `begin_epoch` asks for."""
        return 1

    def check_images(self, samples: Sequence[Sample]) -> None:
        """Checks before any work that the method can train on these images.

        Raises:
            ValueError: It cannot.
        """

    def embed_batches(self, batches: Iterable[EvalBatch]) -> tuple[Tensor, Tensor]:
        """Makes the embeddings that are labelled, of this rank's images in the order of batches.

        Returns:
            L2-normalised global features (n, D) and part features (n, D, P).
        """
        return extract_features(self.network, batches)

    def image_scores(self) -> Tensor | None:
        """Tells a labeler more of the images that `embed_batches` embedded last, (n, S)."""
        return None

    @property
    def per_camera(self) -> int | None:
        """Images of each camera in the epoch's batches, cameras in order.

        None, as in all methods but IICS, for batches of `data.batch_size`, whatever their cameras.
        """
        return None

    def begin_epoch(self, space: Space, classes: Tensor) -> dict[str, Tensor]:
        """Takes the epoch's classes, before its first batch; every rank calls it.

        Args:
            space: The embedded training images.
            classes: Class of each image, 0 to K - 1, -1 for none, (N,).

        Returns:
            What batches shall carry beside the class, by name, a row for each image, (N, ...);
            the same on every rank.
        """
        return {}

    def end_step(self, batch: TrainBatch) -> None:
        """Does what follows the optimiser's step, such as moving a memory; every rank calls it.

        A run stops at a step that is not finite before anything of it is saved.
        """

    def learning_parameters(self) -> list[Any]:
        """Returns the parameters that learn, or groups of them with their share as `lr_scale`."""
        return [one for one in self.parameters() if one.requires_grad]

    # How it starts and ends.

    @property
    def data(self) -> PPLRDataModule | None:
        """The data module of the Trainer, where it is this library's."""
        data = getattr(trainer_of(self), "datamodule", None)
        return data if isinstance(data, PPLRDataModule) else None

    def setup(self, stage: str) -> None:
        """Loads the weights to start from, unless a checkpoint is about to be restored.

        Raises:
            ValueError: A configuration that cannot run on this many processes, or weights that do
                not fit the network; or it is to be compiled where there is no compiler.
        """
        if self.data is not None:
            self.preprocessing = self.data.preprocessing
        if stage == "fit":
            self._guard, self._batch, self.losses = NaNGuard(), None, {}
            check_trainer(self.trainer)
            self._check_batches()
            if self.network.is_compiled:
                check_compiler(self.trainer.strategy.root_device)
        if self.trainer.ckpt_path is None:
            for network in self.all_networks:
                network.load_weights()
            self._check_normalisation()

    def _check_normalisation(self) -> None:
        """Warns of images in another normalisation than those that the weights were trained on."""
        data, network = self.data, self.network
        project = getattr(network.backbone, "weights_project", None)  # of a file that tells
        if data is None or (network.weights != PRETRAINED and project is None):
            return
        whose = "pretrained weights" if project is None else f"{project} weights"
        weights = cast(dict[str, Any], network.backbone.pretrained_cfg)
        mean, std = tuple(weights["mean"]), tuple(weights["std"])
        if (mean, std) != (tuple(data.mean), tuple(data.std)):
            rank_zero_warn(
                f"the {whose} of {network.backbone_name} are for images of "
                f"data.mean={mean} and data.std={std}; here these are {tuple(data.mean)} and "
                f"{tuple(data.std)}"
            )

    def teardown(self, stage: str) -> None:
        """Lets go of the ranks, which another run may not have."""
        share_groups(self, None)

    def _check_batches(self) -> None:
        """Makes the groups of ranks that have the statistics of their images in common."""
        if self.data is not None:
            ranks = ranks_per_group(
                self.data.batch_size, self.network.norm_batch_size, self.trainer.world_size
            )
            share_groups(self, consecutive_group(ranks) if ranks > 1 else None)

    # What all steps share.

    def gather(self, rows: Tensor) -> Tensor:
        """Concatenates the (B, ...) rows of all ranks, with gradients, in global batch order.

        DDP averages gradients over ranks and this gathering's backward sums them: together they
        give the gradient of a loss over the global batch that every rank computes whole.
        """
        if self.trainer.world_size == 1:
            return rows
        gathered = cast(Tensor, self.all_gather(rows, sync_grads=rows.requires_grad))
        return gathered.flatten(0, 1)

    def label_targets(self, batch: TrainBatch) -> Tensor:
        """Returns what losses of classes train on.

        Refined labels, distributions (B, C), where `pseudo_labels.refinement` made some; otherwise
        the classes, (B,).
        """
        return batch.columns.get("soft_labels", batch.targets)

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        """Seeds what the network itself draws (dropout, stochastic depth) for this step.

        So there is no state of a generator that a run which goes on would have to find again.
        """
        self.step_started = time.perf_counter()
        self._batch = batch
        seed = 0 if self.data is None else self.data.seed
        key = (seed, self.current_epoch, batch_idx, self.global_rank)
        torch.manual_seed(int(np.random.SeedSequence(key).generate_state(1)[0]))

    def on_after_backward(self) -> None:
        """Gives all ranks the running statistics of the global batch, before any checkpoint."""
        average_running_statistics(self)

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
        self._guard.before_step(self, optimizer, self.losses)

    def optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        """Steps, and ends the step before any callback may save a checkpoint."""
        super().optimizer_step(*args, **kwargs)
        self.end_step(self._batch)

    def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Checks an epoch's last step with it."""
        if self.trainer.is_last_batch:
            self._guard.check(trainer_of(self))

    def on_validation_start(self) -> None:
        """Checks the last step before its statistics are used."""
        self._guard.check(trainer_of(self))

    def on_train_end(self) -> None:
        """Checks the last step of all."""
        self._guard.check(trainer_of(self))

    def validation_step(self, batch: EvalBatch, batch_idx: int) -> dict[str, Tensor]:
        """Returns what `RetrievalEvaluation` makes its `test_features` of."""
        features, part_features = self.branches(batch.images)
        return {"features": features, "part_features": part_features}

    test_step = validation_step

    def predict_step(self, batch: EvalBatch, batch_idx: int) -> tuple[Tensor, Tensor]:
        """Returns the images' indices (B,) and features (B, D), `predict_kind` of them."""
        return batch.indices, join_features(*self.branches(batch.images), self.predict_kind)

    def configure_optimizers(self) -> Any:
        """Builds `optimizer`, on a GPU a fused one where it can be, and `lr_scheduler`."""
        parameters = self.learning_parameters()
        if self.layer_decay != 1:
            backbones = [network.backbone for network in self.all_networks]
            parameters = layer_groups(parameters, backbones, self.layer_decay)
        # Not with a gradient scaler: Lightning then could not clip gradients.
        trainer = trainer_of(self)
        scaled = trainer is not None and has_scaler(trainer)
        optimizer = self._make_optimizer(parameters, self.device.type == "cuda" and not scaled)
        scale_rates(optimizer)
        if self.lr_scheduler is None:
            return optimizer
        scheduler: Any = self.lr_scheduler(optimizer)
        if isinstance(scheduler, ReduceLROnPlateau):  # Lightning's own says what it looks at
            scheduler = {"scheduler": scheduler, "monitor": cast(Any, scheduler).monitor}
        return {"optimizer": optimizer, "lr_scheduler": scheduler}

    def _make_optimizer(self, parameters: list[Any], fused: bool) -> torch.optim.Optimizer:
        try:
            if fused:
                with suppress(TypeError, RuntimeError):  # of one that has no such form
                    return self.optimizer(parameters, fused=True)
            return self.optimizer(parameters)
        except (TypeError, ValueError) as error:
            raise ValueError(f"optimizer: {error}") from error

    def _check_optimizers(self, states: list[dict[str, Any]]) -> None:
        """Refuses to go on with an optimiser that has nothing of the checkpoint's to go on from.

        Raises:
            ValueError: It is of another kind, or for other parameters.
        """
        made = self.configure_optimizers()
        optimizer = made["optimizer"] if isinstance(made, dict) else made
        if not isinstance(optimizer, torch.optim.Optimizer) or len(states) != 1:
            return  # of a method of its own
        own, stored = optimizer.state_dict()["param_groups"], states[0]["param_groups"]
        sizes = [[len(group["params"]) for group in groups] for groups in (own, stored)]
        names = [{name for group in groups for name in group} for groups in (own, stored)]
        # Each has what the other has not: a version of torch only adds some.
        new, gone = names[0] - names[1], names[1] - names[0] - {"initial_lr", TIMES}
        if sizes[0] != sizes[1] or (new and gone):
            raise ValueError(
                f"the checkpoint's optimiser is not {type(optimizer).__name__} as it is set here: "
                "go on with the same optimizer and layer_decay, or start from the checkpoint with "
                "network.weights"
            )

    # What is kept.

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Checks the last step, of which no checkpoint is written where it was not finite.

        Raises:
            FloatingPointError: It was not.
        """
        self._guard.check(trainer_of(self))
        super().on_save_checkpoint(checkpoint)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Checks a checkpoint, and prepares it for a training that goes on.

        Raises:
            ValueError: It is another model's, or weights alone where training is to go on.
        """
        super().on_load_checkpoint(checkpoint)
        trainer = trainer_of(self)
        if trainer is None or trainer.state.fn != TrainerFn.FITTING:
            return
        if "optimizer_states" not in checkpoint:
            raise ValueError(
                "the checkpoint holds weights alone, from which training cannot go on: start from "
                "it with network.weights"
            )
        every = trainer.check_val_every_n_epoch
        try:
            self._check_optimizers(checkpoint["optimizer_states"])
            validates = trainer.enable_validation and (
                every is None or (checkpoint["epoch"] + 1) % every == 0
            )
            reopen_last_epoch(checkpoint, validates=validates)
        except (KeyError, TypeError, AttributeError, IndexError) as error:
            raise ValueError(
                f"{trainer.ckpt_path}: a damaged checkpoint, or one of another Lightning: its "
                f"fields are not those of a run ({type(error).__name__}: {error}); go on from "
                "another, or start from its weights with network.weights"
            ) from error


def check_trainer(trainer: Trainer) -> None:
    """Refuses options of a Trainer that would change the losses, or be taken for none in silence.

    Raises:
        ValueError: One of them, or a callback that will set one.
    """
    callbacks: list[Any] = trainer.callbacks  # type: ignore[attr-defined]
    schedules = [c.scheduling for c in callbacks if isinstance(c, GradientAccumulationScheduler)]
    counts = {trainer.accumulate_grad_batches, *(n for s in schedules for n in s.values())}
    if counts != {1}:
        raise ValueError(
            f"accumulate_grad_batches={max(counts)}: the losses compare all images of a batch; use "
            "1, and network.chunk_size to save memory"
        )
    if str(trainer.precision) in ("16-true", "bf16-true"):
        raise ValueError(
            f"trainer.precision={trainer.precision}: the losses compare cosines, for which 16 bits "
            "are too few; use bf16-mixed (or 16-mixed)"
        )
    least = {"check_val_every_n_epoch": 1, "gradient_clip_val": 0, "log_every_n_steps": 0}
    for name, lowest in least.items():
        value = getattr(trainer, name)
        if value is not None and not value >= lowest:
            raise ValueError(f"trainer.{name}={value}: must be at least {lowest}")
