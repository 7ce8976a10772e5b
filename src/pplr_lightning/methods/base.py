"""The loop that all methods share: how they start, embed, step, are evaluated and saved."""

from __future__ import annotations

import inspect
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, TypeVar, cast

import numpy as np
import torch
from lightning.pytorch import LightningModule
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau, StepLR

from pplr_lightning import networks
from pplr_lightning.data import EvalBatch, PPLRDataModule, Sample, TrainBatch
from pplr_lightning.data.transforms import Preprocessing
from pplr_lightning.distributed import consecutive_group
from pplr_lightning.evaluation.embedding import ImageLike, embed_images
from pplr_lightning.evaluation.extraction import (
    FeatureKind,
    extract_features,
    join_features,
    unit_features,
)
from pplr_lightning.evaluation.fingerprint import Fingerprint, checksum
from pplr_lightning.labelers.space import Space
from pplr_lightning.lightning_internals import has_scaler, reopen_last_epoch, trainer_of
from pplr_lightning.methods.nan_guard import NaNGuard
from pplr_lightning.networks import PartNetwork, average_running_statistics, share_groups
from pplr_lightning.networks.compilation import check_compiler
from pplr_lightning.networks.part_network import PRETRAINED
from pplr_lightning.networks.shared_batch_norm import ranks_per_group
from pplr_lightning.sharing.hub import HubMixin
from pplr_lightning.weights.checkpoints import (
    check_weights,
    differences,
    read_checkpoint,
)

M = TypeVar("M", bound="ReIDModule")


class ReIDModule(HubMixin, LightningModule):
    """Base of the methods: a network, and the loop around its training.

    A method gives `training_step` and, where it needs them, the hooks `begin_epoch` and
    `end_step`; `max_classes` where it cannot train on any number of them. What it keeps from step
    to step are parameters, buffers or extra state, which checkpoints hold.

    Args:
        network: Embeds the images.

    Attributes:
        optimizer: Makes the optimiser of parameters; the method's published one. The command
            line's section `optimizer` takes its place.
        lr_scheduler: Makes the schedule of the optimiser, likewise (`lr_scheduler`); None for none.
        preprocessing: What images go through before the network sees them: that of the data module
            last worked with, or else of the checkpoint; None where neither says.
        predict_kind: Which features `predict_step` gives, as of `join_features`.
    """

    def __init__(self, network: PartNetwork) -> None:
        super().__init__()
        self.network = network
        self.optimizer: Callable[..., torch.optim.Optimizer] = partial(
            torch.optim.Adam, lr=3.5e-4, weight_decay=5e-4
        )
        self.lr_scheduler: Callable[..., LRScheduler | ReduceLROnPlateau] | None = partial(
            StepLR, step_size=20, gamma=0.1
        )
        self.preprocessing: Preprocessing | None = None
        self.predict_kind: FeatureKind = "global"
        self.losses: dict[str, Tensor] = {}  # of this step, the sum and its parts
        self.step_started = 0.0  # clock at this step's begin, after what callbacks do before it
        self._guard = NaNGuard()
        self._batch: Any = None  # of this step

    # What a method may define.

    @property
    def max_classes(self) -> int | None:
        """The most classes that can be trained on; None for any number."""
        return None

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

    # Where it starts.

    @classmethod
    def load_from_checkpoint(  # type: ignore[override]
        cls: type[M],
        checkpoint_path: str | Path,
        map_location: Any = "cpu",
        *,
        strict: bool = True,
        weights_only: bool = True,
        **options: Any,
    ) -> M:
        """Builds the module that a checkpoint was made of, from what the checkpoint says.

        Unlike Lightning's own it calls nothing that the file may name. Called on `ReIDModule`
        itself it finds the class among those that are imported.

        Args:
            checkpoint_path: Of a run of this library.
            map_location: Device that the module is to be on.
            strict: Refuse weights that do not fit; false takes those of a name and shape that do.
            weights_only: Must be true: tensors and plain values alone are read.
            **options: Of the constructor, in place of the checkpoint's.

        Raises:
            FileNotFoundError: There is no such file.
            ValueError: It is no checkpoint of such a module, or holds more than tensors and values.
        """
        if not weights_only:
            raise ValueError("weights_only=False: a checkpoint's code is never executed; use True")
        checkpoint = read_checkpoint(checkpoint_path)
        try:
            stored = {n: checkpoint[n] for n in ("method", "network")}
            module = cls.from_options({**checkpoint["hyper_parameters"], **stored}, options)
            module.strict_loading = strict
            module.on_load_checkpoint(checkpoint)
            module.load_state_dict(_fitting(checkpoint, module, strict), strict=strict)
        except KeyError as error:
            raise ValueError(f"{checkpoint_path}: a checkpoint without {error}") from error
        except (TypeError, ValueError) as error:  # options of another version
            raise ValueError(f"{checkpoint_path}: {error}") from error
        return module.to(map_location)

    @classmethod
    def from_options(cls: type[M], stored: dict[str, Any], options: dict[str, Any]) -> M:
        """Builds a module without weights from the `options` of another, with some in their place.

        Called on `ReIDModule` itself it finds the class among those that are imported.

        Raises:
            ValueError: They are another method's or another version's, or the network is of a kind
                that this library does not know.
        """
        # Lightning notes names of its own (`_instantiator`), which are never called.
        given = {n: v for n, v in stored.items() if n not in ("method", "network") and n[0] != "_"}
        if "network" not in options:
            kind, init_args = stored["network"]["class_path"], stored["network"]["init_args"]
            if kind not in networks.__all__:
                raise ValueError(f"network {kind}: give the network that the weights are of")
            network = getattr(networks, kind)(**{**init_args, "weights": None})
            network.options = init_args  # which say what the weights once started from
            given["network"] = network
        found = _find_class(cls, str(stored["method"]))
        strange = sorted(set(given) - set(inspect.signature(found.__init__).parameters))
        if strange:
            raise ValueError(f"{found.__name__} has no option {strange[0]}: of another version?")
        return found(**{**given, **options})

    @property
    def options(self) -> dict[str, Any]:
        """What the module is built again from, in plain values; its network's within."""
        taken = inspect.signature(type(self).__init__).parameters  # a base class may note more
        own = {n: v for n, v in self.hparams.items() if n in taken and n != "network"}
        network = {"class_path": type(self.network).__name__, "init_args": self.network.options}
        return {"method": type(self).__name__, **own, "network": network}

    def setup(self, stage: str) -> None:
        """Loads the weights to start from, unless a checkpoint is about to be restored.

        Raises:
            ValueError: A configuration that cannot run on this many processes, or weights that do
                not fit the network; or it is to be compiled where there is no compiler.
        """
        data = getattr(trainer_of(self), "datamodule", None)
        if isinstance(data, PPLRDataModule):
            self.preprocessing = data.preprocessing
        if stage == "fit":
            self._guard, self._batch, self.losses = NaNGuard(), None, {}
            self._check_batches()
            if self.network.is_compiled:
                check_compiler(self.trainer.strategy.root_device)
        if self.trainer.ckpt_path is None:
            self.network.load_weights()
            self._check_normalisation()

    def _check_normalisation(self) -> None:
        """Warns of images in another normalisation than those of the published weights."""
        data = getattr(self.trainer, "datamodule", None)
        if not isinstance(data, PPLRDataModule) or self.network.weights != PRETRAINED:
            return
        weights = cast(dict[str, Any], self.network.backbone.pretrained_cfg)
        mean, std = tuple(weights["mean"]), tuple(weights["std"])
        if (mean, std) != (tuple(data.mean), tuple(data.std)):
            rank_zero_warn(
                f"the pretrained weights of {self.network.backbone_name} were trained on images of "
                f"data.mean={mean} and data.std={std}; here these are {tuple(data.mean)} and "
                f"{tuple(data.std)}"
            )

    def teardown(self, stage: str) -> None:
        """Lets go of the ranks, which another run may not have."""
        share_groups(self.network, None)

    def _check_batches(self) -> None:
        """Refuses what would change the statistics or the triplets of a global batch."""
        if self.trainer.accumulate_grad_batches != 1:
            raise ValueError(
                f"accumulate_grad_batches={self.trainer.accumulate_grad_batches}: the losses "
                "compare all images of a batch; use 1, and network.chunk_size to save memory"
            )
        data = getattr(self.trainer, "datamodule", None)
        if isinstance(data, PPLRDataModule):
            ranks = ranks_per_group(
                data.batch_size, self.network.norm_batch_size, self.trainer.world_size
            )
            share_groups(self.network, consecutive_group(ranks) if ranks > 1 else None)

    # What it embeds.

    def branches(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Embeds images (B, 3, H, W) as L2-normalised global (B, D) and part features (B, D, P)."""
        return unit_features(self.network(images))

    def forward(self, images: Tensor) -> Tensor:
        """Embeds images (B, 3, H, W) as L2-normalised global features (B, D), which are tested."""
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

        They are prepared as those of the evaluation in training were, before a training as the
        network's weights and image size want it, and embedded in evaluation mode on the module's
        device.

        Args:
            images: Files, PIL images or tensors (uint8, or floating-point in [0, 1]; 3 x H x W or
                H x W x 3).
            kind: Which features, as of `join_features`.
            image_size: Height and width to resize them to, instead of those of the training.
            batch_size: Images at a time, 1 or more.

        Returns:
            L2-normalised float32 vectors on the CPU, (N, D).

        Raises:
            ValueError: A file or a tensor is no image, or `batch_size` is below 1.
        """
        prepared = self.prepared(image_size)
        return embed_images(self.network, images, prepared, kind=kind, batch_size=batch_size)

    def prepared(self, image_size: tuple[int, int] | None = None) -> Preprocessing:
        """Returns what images go through, with another image size where one is given."""
        if self.preprocessing is not None:
            own = self.preprocessing
        else:
            weights = cast(dict[str, Any], self.network.backbone.pretrained_cfg)
            own = Preprocessing(
                self.network.image_size, tuple(weights["mean"]), tuple(weights["std"])
            )
        size = own.image_size if image_size is None else (image_size[0], image_size[1])
        return own._replace(image_size=size)

    def fingerprint(
        self, *, kind: FeatureKind = "global", image_size: tuple[int, int] | None = None
    ) -> Fingerprint:
        """Tells what the vectors of `embed` are made with."""
        return Fingerprint(checksum(self.network), kind, self.prepared(image_size))

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

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        """Seeds what the network itself draws (dropout, stochastic depth) for this step.

        So there is no state of a generator that a run which goes on would have to find again.
        """
        self.step_started = time.perf_counter()
        self._batch = batch
        data = getattr(self.trainer, "datamodule", None)
        seed = data.seed if isinstance(data, PPLRDataModule) else 0
        key = (seed, self.current_epoch, batch_idx, self.global_rank)
        torch.manual_seed(int(np.random.SeedSequence(key).generate_state(1)[0]))

    def on_after_backward(self) -> None:
        """Gives all ranks the running statistics of the global batch, before any checkpoint."""
        average_running_statistics(self.network)

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
        parameters = [parameter for parameter in self.parameters() if parameter.requires_grad]
        # Not with a gradient scaler: Lightning then could not clip gradients.
        trainer = trainer_of(self)
        scaled = trainer is not None and has_scaler(trainer)
        optimizer = self._make_optimizer(parameters, self.device.type == "cuda" and not scaled)
        if self.lr_scheduler is None:
            return optimizer
        scheduler: Any = self.lr_scheduler(optimizer)
        if isinstance(scheduler, ReduceLROnPlateau):  # Lightning's own says what it looks at
            scheduler = {"scheduler": scheduler, "monitor": cast(Any, scheduler).monitor}
        return {"optimizer": optimizer, "lr_scheduler": scheduler}

    def _make_optimizer(
        self, parameters: list[torch.nn.Parameter], fused: bool
    ) -> torch.optim.Optimizer:
        try:
            if fused:
                with suppress(TypeError, RuntimeError):  # of one that has no such form
                    return self.optimizer(parameters, fused=True)
            return self.optimizer(parameters)
        except (TypeError, ValueError) as error:
            raise ValueError(f"optimizer: {error}") from error

    # What is kept.

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Notes what the module is and what images go through, for those who use these weights.

        Raises:
            FloatingPointError: The last step was not finite; no checkpoint is written of it.
        """
        self._guard.check(trainer_of(self))
        options = self.options
        for name in ("method", "network"):
            checkpoint[name] = options.pop(name)
        checkpoint["hyper_parameters"] = options
        if self.preprocessing is not None:
            checkpoint["preprocessing"] = self.preprocessing._asdict()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Checks a checkpoint.

        Raises:
            ValueError: It is another model's, or weights alone where training is to go on.
        """
        self.network.expect_weights()
        if self.strict_loading:
            check_weights(checkpoint["state_dict"], self.state_dict())
        if self.preprocessing is None and "preprocessing" in checkpoint:
            self.preprocessing = Preprocessing(**checkpoint["preprocessing"])
        trainer = trainer_of(self)
        if trainer is None or trainer.state.fn != TrainerFn.FITTING:
            return
        if "optimizer_states" not in checkpoint:
            raise ValueError(
                "the checkpoint holds weights alone, from which training cannot go on: start from "
                "it with network.weights"
            )
        every = self.trainer.check_val_every_n_epoch
        validates = self.trainer.enable_validation and (
            every is None or (checkpoint["epoch"] + 1) % every == 0
        )
        reopen_last_epoch(checkpoint, validates=validates)


def _fitting(checkpoint: dict[str, Any], module: ReIDModule, strict: bool) -> dict[str, Any]:
    """Returns a checkpoint's weights; where not all must fit, those of a shape that does."""
    weights, own = checkpoint["state_dict"], module.state_dict()
    if strict:
        return weights
    return {n: w for n, w in weights.items() if not differences({n: w}, {n: own.get(n)})}


def _find_class(cls: type[M], name: str) -> type[M]:
    """Finds a class of this name: `cls`, or the last made of it, as a notebook makes them anew."""
    classes = [cls]
    for one in classes:
        classes += one.__subclasses__()
    found = next((one for one in [cls, *reversed(classes)] if one.__name__ == name), None)
    if found is None:
        raise ValueError(f"the model is a {name}, which is no {cls.__name__} that is imported")
    return found
