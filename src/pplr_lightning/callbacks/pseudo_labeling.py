"""New labels at the start of every epoch: extraction, labeler, method, hand-over and report."""

from __future__ import annotations

from collections.abc import Iterable
from copy import deepcopy
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, cast

import torch
import torch.distributed as dist
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_info
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch import Tensor

from pplr_lightning.callbacks.progress import show_stage, track
from pplr_lightning.callbacks.shared import History, compile_before_work
from pplr_lightning.data import EvalBatch, PPLRDataModule, Sample
from pplr_lightning.data.datasets import UNKNOWN, first_frames, frame_numbers, tracklet_numbers
from pplr_lightning.data.pairs import Pairs, image_names, read_pairs
from pplr_lightning.data.pseudo_labels import PseudoLabels
from pplr_lightning.distributed import (
    all_gather_list,
    log_own,
    new_waiting_group,
    raised_on_all,
)
from pplr_lightning.evaluation.label_quality import label_statistics
from pplr_lightning.functional.checks import check_count
from pplr_lightning.functional.engines import choose_engine
from pplr_lightning.functional.sharding import Share
from pplr_lightning.labelers import DBSCAN, Consensus, Labeler, Space
from pplr_lightning.labelers.labeler import trainable_classes
from pplr_lightning.labelers.space import Backend, Index
from pplr_lightning.labelers.stages import Stages
from pplr_lightning.methods.base import ReIDModule
from pplr_lightning.methods.nan_guard import NotFiniteError


class PseudoLabeling(Callback):
    """Labels the training images before every epoch and hands the labels to method and data.

    Each rank embeds and searches its share of the images, and all find the same labels. Fewer than
    two classes stop the run: there is nothing to tell apart. Of more than the method can train on,
    the largest are kept, with a warning.

    Args:
        labeler: Gives each image its class; the paper's `DBSCAN` when None.
        refinement: Softens the classes by those of the epoch before; None leaves them as they are.
        backend: Search neighbours with FAISS or torch; `auto` takes the fastest at hand.
        index: `flat` finds the nearest neighbours. `ivf` finds most of them, much faster, for
            50,000 images and more; each epoch's recall is measured on a sample and printed.
        probes: Cells that `ivf` searches for each image; more find more.
        pool_tracklets: Where the data have tracklets, label these, each by the mean of its frames'
            features, and give all frames what their tracklet gets; options that count images, such
            as k1, min_samples and agreement_k, then count tracklets. `false` labels every image by
            itself.
        split_tracklets: Where a tracker has jumped from one person to another, part the tracklet
            before it is pooled: in each epoch, where a few frames before and after differ by more
            than this many times what frames of one person do by chance
            (`functional.split_tracklets`). Above 1, for instance 2.25; None takes tracklets as they
            are.
        pairs: Table of what is known of pairs of images, such as `pplr correct` writes: CSV in
            UTF-8, or Parquet (`.parquet`), with the columns `path_a`, `path_b` (relative to the
            data set's root) and `same`, true or false; a row of `path_a` alone leaves that image
            out. The classes of any labeler then obey them (`functional.constrain_labels`). It is
            read anew at the start of each run.

    Attributes:
        stages: The clock of the last labelling.

    Raises:
        ValueError: An option is out of range.
    """

    stages: Stages
    _group: dist.ProcessGroup | None = None
    _tracklets: Tensor | None = None  # of each image, (N,), where these are labelled
    _known: Pairs | None = None  # what `pairs` holds

    def __init__(
        self,
        labeler: Labeler | None = None,
        *,
        refinement: Consensus | None = None,
        backend: Backend = "auto",
        index: Index = "flat",
        probes: int = 64,
        pool_tracklets: bool = True,
        split_tracklets: float | None = None,
        pairs: str | Path | None = None,
    ) -> None:
        check_count("pseudo_labels.probes", probes)
        if split_tracklets is not None and not 1 < split_tracklets < float("inf"):
            raise ValueError(
                f"pseudo_labels.split_tracklets={split_tracklets}: must be finite and above 1, or "
                "null for none"
            )
        if split_tracklets is not None and refinement is not None:
            raise ValueError(
                "pseudo_labels.split_tracklets: parts tracklets anew in each epoch, and "
                "pseudo_labels.refinement compares them with those of the epoch before; leave out "
                "one of the two"
            )
        self.labeler = labeler or DBSCAN()
        self.refinement = refinement
        self._start = deepcopy(self.state_dict())
        self.backend: Backend = backend
        self.index: Index = index
        self.probes = probes
        self.pool_tracklets = pool_tracklets
        self.split_tracklets = split_tracklets
        self.pairs = None if pairs is None else Path(pairs)

    def check_files(self) -> None:
        """Checks what can be known before the data are read.

        Raises:
            FileNotFoundError: There is no table of pairs.
        """
        if self.pairs is not None and not self.pairs.is_file():
            raise FileNotFoundError(f"pseudo_labels.pairs: {self.pairs}: no such table")

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Checks what can be known before any work; has the labeler forget another run.

        Raises:
            MisconfigurationException: The data module or the module is not of this library.
            FileNotFoundError: There is no table of pairs.
            ValueError: The labeler or the method cannot work on these images, the table of pairs
                cannot be obeyed, or FAISS on the GPU is wanted where there is no GPU.
        """
        if stage != "fit":
            return
        data = _data_of(trainer)
        if not isinstance(pl_module, ReIDModule):
            raise MisconfigurationException("PseudoLabeling labels for a PPLRModule or its kin")
        if self.refinement is not None and not pl_module.takes_soft_labels:
            raise ValueError(
                f"pseudo_labels.refinement: makes soft labels, which the losses of "
                f"{type(pl_module).__name__} do not take; leave it out"
            )
        self.load_state_dict(deepcopy(self._start))
        samples = self._labelled(data.train_samples, pl_module)
        with raised_on_all():
            self._known = self._read_pairs(data, pl_module)
            self.labeler.check(samples)
            pl_module.check_images(samples)
            choose_engine(self.backend, self.index)
            compile_before_work()
        self._group = new_waiting_group()
        self.stages = Stages()
        History.of(trainer)

    def _labelled(self, samples: list[Sample], method: ReIDModule) -> list[Sample]:
        """Lists what gets labels of its own: the images, or a frame of each tracklet."""
        self._tracklets = None
        if not self.pool_tracklets or all(one.tracklet_id == UNKNOWN for one in samples):
            return samples
        if method.keeps_images:
            raise ValueError(
                f"the data have tracklets, but {type(method).__name__} keeps a feature of every "
                "image, each with a label of its own: set pseudo_labels.pool_tracklets to false"
            )
        self._tracklets = torch.tensor(tracklet_numbers(samples))
        firsts = first_frames(samples)
        rank_zero_info(f"labels are of {len(firsts):,} tracklets of {len(samples):,} images")
        return firsts

    def _read_pairs(self, data: PPLRDataModule, method: ReIDModule) -> Pairs | None:
        """Reads the table of pairs, and checks that it can be obeyed."""
        if self.pairs is None:
            return None
        if method.keeps_images:
            raise ValueError(
                f"pseudo_labels.pairs: {type(method).__name__} keeps a row of every image, and so "
                "needs a class of each as its labeler makes them; leave pairs out"
            )
        self.check_files()
        known = read_pairs(self.pairs, *image_names(data.dataset, data.train_samples))
        if self._tracklets is not None:
            known.of_tracklets(self._tracklets)
        rank_zero_info(
            f"{self.pairs}: {len(known.must_link):,} pairs of one person, "
            f"{len(known.cannot_link):,} of two, {int(known.dropped.sum()):,} images left out"
        )
        return known

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Lets go of the ranks, which another run may not have."""
        self._group = None

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Labels the images with the network as it stands, before the epoch's first batch."""
        data, method = _data_of(trainer), cast(ReIDModule, pl_module)
        persons = torch.tensor([sample.person_id for sample in data.train_samples])
        cameras = torch.tensor([sample.camera_id for sample in data.train_samples])
        frames = torch.tensor(frame_numbers(data.train_samples))
        loader = data.labeling_dataloader()
        self.stages = Stages(partial(show_stage, trainer))
        with (
            trainer.precision_plugin.forward_context(),
            Share(len(cast(Any, loader.sampler)), self._group) as share,
        ):
            space = Space(
                lambda: _embedded(trainer, method, track(trainer, loader, "Extracting features")),
                share=share,
                cameras=cameras,
                persons=persons,
                frames=frames,
                scores=method.image_scores,
                stages=self.stages,
                backend=self.backend,
                index=self.index,
                probes=self.probes,
                num_neighbors=method.num_neighbors,
            )
            tracklets = self._tracklets
            if tracklets is not None and self.split_tracklets is not None:
                times = torch.tensor([sample.frame for sample in data.train_samples])
                tracklets = space.split_tracklets(tracklets, self.split_tracklets, times)
            if tracklets is not None:
                space = space.of_tracklets(tracklets)
            classes = self.labeler.label(space)
            known = self._known
            if known is not None:
                known = known if tracklets is None else known.of_tracklets(tracklets)
                classes = space.constrain(classes, known)
            classes = trainable_classes(classes, method.max_classes)
            columns = method.begin_epoch(space, classes)
            if self.refinement is not None:
                columns = {**columns, **self.refinement.refine(space, classes)}
            labels = PseudoLabels(classes, columns, per_camera=method.per_camera)
            if tracklets is not None:
                labels = labels.of_frames(tracklets)
        if self._known is not None:  # of a tracklet perhaps a few frames
            kept = labels.classes.masked_fill(self._known.dropped, -1)
            labels = replace(labels, classes=kept)
        # Not those of another run, which the data may still hold.
        old = data.pseudo_labels if trainer.current_epoch else None
        before = None if old is None else old.classes
        data.pseudo_labels = labels
        found = label_statistics(labels, persons, cameras, before)  # the same on every rank
        values = {f"labels/{name}": value for name, value in found.items()}
        values |= {f"labels/{n}": float(v) for n, v in self.labeler.chosen_options().items()}
        values |= {f"time/{name}": seconds for name, seconds in self.stages.seconds.items()}
        log_own(pl_module, values)
        History.of(trainer).row(trainer).update(values)

    def state_dict(self) -> dict[str, Any]:
        """Keeps what labeler and refinement keep."""
        refined = None if self.refinement is None else self.refinement.state_dict()
        return {"labeler": self.labeler.state_dict(), "refinement": refined}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Gives it back to them."""
        self.labeler.load_state_dict(state_dict["labeler"])
        if self.refinement is not None and state_dict["refinement"] is not None:
            self.refinement.load_state_dict(state_dict["refinement"])


def _embedded(
    trainer: Trainer, method: ReIDModule, batches: Iterable[EvalBatch]
) -> tuple[Tensor, Tensor]:
    """Embeds this rank's images; every rank calls it, and all raise what one does."""
    with raised_on_all():
        features, part_features = method.embed_batches(batches)
    return _alive(trainer, features, part_features)


def _alive(trainer: Trainer, features: Tensor, part_features: Tensor) -> tuple[Tensor, Tensor]:
    """Checks that the network still says something of each image; every rank calls it.

    Raises:
        NotFiniteError: It does not, on some rank.
    """
    norms = torch.cat([features[:, :, None], part_features], dim=2).float().norm(dim=1)
    dead = int((~(norms > 0) | norms.isinf()).any(dim=1).sum())  # NaN is not above 0
    counts = all_gather_list([dead])
    if any(counts):
        if trainer.global_step == 0:
            why = "the weights to start from are broken (network.weights)"
        else:
            why = "training has diverged: lower optimizer.lr, and go on from an earlier checkpoint"
            if trainer.ckpt_path is not None:
                why += f" than {trainer.ckpt_path}, which may be damaged"
        raise NotFiniteError(
            f"epoch {trainer.current_epoch}: the network gives features of norm 0, or such as are "
            f"not finite, of {sum(counts)} images; {why}",
            trainer.global_rank,
        )
    return features, part_features


def _data_of(trainer: Trainer) -> PPLRDataModule:
    data = getattr(trainer, "datamodule", None)
    if not isinstance(data, PPLRDataModule):
        raise MisconfigurationException(
            "PseudoLabeling hands its labels to a PPLRDataModule: call "
            "trainer.fit(module, datamodule=PPLRDataModule(...))"
        )
    return data
