"""The data of a run: images, batches, and the current pseudo labels."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from typing import Any, Literal, cast, get_args

import torch
from lightning.pytorch import LightningDataModule
from lightning.pytorch.trainer.states import TrainerFn, TrainerStatus
from lightning.pytorch.utilities import rank_zero_info, rank_zero_warn
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch.utils.data import DataLoader

from pplr_lightning.data.augmentation import TrainTransform
from pplr_lightning.data.cache import ImageCache, Node, new_cache
from pplr_lightning.data.datasets import (
    UNKNOWN,
    ReIDDataset,
    Sample,
    Splits,
    check_same_on_ranks,
)
from pplr_lightning.data.decoding import BadImages, decode_all, without_bad_images
from pplr_lightning.data.epoch_loader import EpochLoader
from pplr_lightning.data.image_loader import ImageLoader, whole
from pplr_lightning.data.images import (
    EvalBatch,
    EvalImages,
    TrainBatch,
    TrainImages,
    outlive_sigterm,
)
from pplr_lightning.data.pseudo_labels import PseudoLabels
from pplr_lightning.data.sampler import IdentityBatchSampler, ShardSampler, check_batch
from pplr_lightning.data.synthetic import SyntheticReID
from pplr_lightning.data.transforms import (
    MEAN,
    RGB,
    STD,
    EvalTransform,
    ImageTransform,
    Preprocessing,
    contrastive_transform,
)
from pplr_lightning.distributed import raised_on_all
from pplr_lightning.functional.checks import (
    MOST_WORKERS,
    check_counts,
    check_image_size,
    check_shape,
)
from pplr_lightning.lightning_internals import batches_done

UseCameras = bool | Literal["spread"]
Cache = Literal["auto", "ram", "none"]
Augmentation = Literal["pplr", "contrastive"]
MOST_VIEWS = 64  # of an image in a batch
SEEN = 0.25, 20  # times in an epoch, on average, that an image is seen at least and at most
MOST_STEPS = 10**9  # of an epoch; no list holds more than some times that


class PPLRDataModule(LightningDataModule):
    """Unlabeled images for any method; serves the labels that `PseudoLabeling` makes every epoch.

    Args:
        dataset: Reader of the images; the drawn `SyntheticReID` when None.
        image_size: Height and width.
        batch_size: Training images per step **over all processes**, P * K.
        instances: Images per cluster in a batch, K.
        iterations: Training steps per epoch.
        eval_batch_size: Images per step and process in labelling and evaluation.
        num_workers: Loader processes per process, where images are read from their files; 0
            reads them in the process itself.
        cache: `ram` decodes and resizes every image once, as the run starts, and keeps them all in
            memory, one copy per machine; batches are then made by the tensor, on the device, of
            the same pixels. `none` reads a file whenever its image is needed, as does another
            transform than the paper's. `auto` is `ram` where half of the free memory suffices.
        use_cameras: Prefer positives from other cameras than the first image's when drawing a
            cluster's K images; PPLR's authors do so in both their settings. `spread` draws one of
            each camera before a second of any, as ICE does.
        repeat_images: Repeat the images of a cluster that has fewer than K. `false` is for SpCL,
            which trains on single images: a batch then is of as many clusters as fill it.
        augmentation: `pplr` is the paper's; `contrastive` is SimCLR's, for the warm start.
        padding: Pixels by which the paper's augmentation shifts an image at most; the paper's 10
            are for its 384 x 128.
        random_erasing: Probability of random erasing in the paper's augmentation, in [0, 1].
        views: Augmentations of each image in a batch; MMT compares two. The batch holds the others
            as `more_views`.
        plain_view: Give batches the images as in evaluation, too, as `plain`; ICE compares
            with these.
        mean: Of each colour, subtracted from values in [0, 1]; ImageNet's by default.
        std: Of each colour, by which they then are divided.
        bad_images: Whether an unreadable image file stops the run (`raise`) or is left out with
            a warning (`skip`); every file is decoded once as the run starts.
        seed: Seed of sampling and augmentation, 0 or above.

    Raises:
        ValueError: An option is out of range.
    """

    def __init__(
        self,
        dataset: ReIDDataset | None = None,
        *,
        image_size: tuple[int, int] = (384, 128),
        batch_size: int = 64,
        instances: int = 4,
        iterations: int = 400,
        eval_batch_size: int = 128,
        num_workers: int = 4,
        cache: Cache = "auto",
        use_cameras: UseCameras = False,
        repeat_images: bool = True,
        augmentation: Augmentation = "pplr",
        padding: int = 10,
        random_erasing: float = 0.5,
        views: int = 1,
        plain_view: bool = False,
        mean: tuple[float, float, float] = MEAN,
        std: tuple[float, float, float] = STD,
        bad_images: BadImages = "raise",
        seed: int = 0,
    ) -> None:
        super().__init__()
        check_batch(batch_size, instances, world_size=1)
        check_image_size("data.image_size", image_size)
        check_counts(
            "data", most=MOST_STEPS, iterations=iterations, eval_batch_size=eval_batch_size
        )
        check_counts("data", most=MOST_VIEWS, views=views)
        check_counts("data", least=0, most=MOST_WORKERS, num_workers=num_workers)
        check_counts("data", least=0, most=max(image_size), padding=padding)
        check_counts("data", least=0, seed=seed)
        if not 0 <= random_erasing <= 1:
            raise ValueError(f"random_erasing={random_erasing}: must lie in [0, 1]")
        for name, choice, choices in (
            ("cache", cache, get_args(Cache)),
            ("augmentation", augmentation, get_args(Augmentation)),
            ("bad_images", bad_images, get_args(BadImages)),
            ("use_cameras", use_cameras, (True, False, "spread")),
        ):
            if choice not in choices:
                raise ValueError(f"{name}={choice!r}: choose one of {', '.join(map(str, choices))}")
        for name, values in (("mean", mean), ("std", std)):
            if len(values) != 3 or not all(map(math.isfinite, values)):
                raise ValueError(f"{name}={tuple(values)}: give a finite number for each colour")
        if min(std) <= 0:
            raise ValueError(f"std={tuple(std)}: must be above 0 for each colour")
        self.dataset = SyntheticReID() if dataset is None else dataset
        self.image_size = (image_size[0], image_size[1])
        self.batch_size = batch_size
        self.instances = instances
        self.iterations = iterations
        self.eval_batch_size = eval_batch_size
        self.num_workers = num_workers
        self.cache = cache
        self.use_cameras = use_cameras
        self.repeat_images = repeat_images
        self.views = views
        self.plain_view = plain_view
        self.bad_images = bad_images
        self.seed = seed
        self.mean, self.std = mean, std
        self.eval_transform: ImageTransform = EvalTransform(self.image_size, mean=mean, std=std)
        self.train_transform: ImageTransform = (
            TrainTransform(
                self.image_size, padding=padding, random_erasing=random_erasing, mean=mean, std=std
            )
            if augmentation == "pplr"
            else contrastive_transform(self.image_size, mean=mean, std=std)
        )
        self._unprepared: Exception | None = None  # why `prepare_data` failed
        self.splits: Splits | None = None
        self.image_cache: ImageCache | None = None  # made with the splits
        self.pseudo_labels: PseudoLabels | None = None

    def prepare_data(self) -> None:
        """Writes the data set where it has to be made first.

        A Trainer has one process of a machine do so, and the others wait: that it failed, `setup`
        raises on all of them.
        """
        try:
            self._unprepared = None
            self.dataset.prepare()
        except Exception as error:
            if self.trainer is None:
                raise
            self._unprepared = error

    def setup(self, stage: str) -> None:
        """Lists the images and checks them.

        Raises:
            Exception: That of `prepare_data`, on any rank.
            OSError: An image file cannot be opened or read.
            ValueError: An image is no image, a split needed is empty, the batch does not divide
                over the processes, or they find other images.
        """
        check_batch(self.batch_size, self.instances, self.world_size)
        if self.splits is None:
            with raised_on_all():
                if self._unprepared is not None:
                    raise self._unprepared
                splits = self.dataset.load()
            check_same_on_ranks(splits)
            self.splits = self._decoded(splits)
            rank_zero_info(self.splits.describe())
        cameras = {sample.camera_id for sample in self.splits.train} - {UNKNOWN}
        if stage == "fit" and self.use_cameras and len(cameras) < 2:
            rank_zero_warn(
                f"data.use_cameras has no effect: the training images are of {len(cameras)} known "
                "cameras; have the data set give their ids, or set it to false"
            )
        if stage == "fit":
            self._tell_epoch(len(self.splits.train))
        test_images = len(self.splits.query) + len(self.splits.gallery)
        missing = [name for name in ("query", "gallery") if not getattr(self.splits, name)]
        if missing and (test_images or stage in ("validate", "test")):
            raise ValueError(
                f"the data set has no {' and no '.join(missing)} images: evaluation needs both"
                + ("" if test_images else "; fit alone runs without them")
            )
        if 0 < test_images < self.world_size:
            raise ValueError(f"{test_images} test images on {self.world_size} processes: use fewer")

    def _tell_epoch(self, images: int) -> None:
        """Says how often an epoch sees an image, and warns where that is far from once."""
        times = self.iterations * self.batch_size / max(images, 1)
        line = (
            f"an epoch of {self.iterations:,} steps sees each of {images:,} images "
            f"{times:,.2f} times on average (data.iterations x data.batch_size / images)"
        )
        once = max(1, round(images / self.batch_size))
        if times < SEEN[0]:
            rank_zero_warn(f"{line}: most in none; raise data.iterations, up to {once:,} or more")
        elif times > SEEN[1]:
            rank_zero_warn(
                f"{line}, by labels that are made once: lower data.iterations to {once:,} to "
                f"{4 * once:,}, and raise trainer.max_epochs instead"
            )
        else:
            rank_zero_info(line)

    def _decoded(self, splits: Splits) -> Splits:
        """Decodes every image once, into the cache if there is one, and deals with bad ones."""
        paths = list(dict.fromkeys(sample.path for split in splits for sample in split))
        node = self._node()
        self.image_cache = self._new_cache(paths, node)
        bad = decode_all(paths, self.image_cache, node=node, world_size=self.world_size)
        return without_bad_images(splits, bad, self.bad_images)

    def _new_cache(self, paths: Sequence[str], node: Node) -> ImageCache | None:
        """Makes a cache to be filled, where one is wanted and can serve; all ranks must call it."""
        must_fit, evaluates = self.cache == "ram", self.eval_transform
        if self.cache == "none":
            return None
        if type(evaluates) is EvalTransform and type(self.train_transform) is TrainTransform:
            # Lightning would advise to take more of them; a cache has no use for any.
            warnings.filterwarnings("ignore", "The '[a-z]+_dataloader' does not have many workers")
            return new_cache(paths, evaluates.image_size, node=node, must_fit=must_fit)
        reason = "the contrastive augmentation, or a transform of your own, needs the files"
        if must_fit:
            raise ValueError(f"data.cache=ram: {reason}; use data.cache auto or none")
        rank_zero_info(f"no cache: {reason}")
        return None

    def _node(self) -> Node:
        if self.trainer is None:
            return Node()
        processes = self.trainer.world_size // self.trainer.num_nodes
        return Node(self.trainer.global_rank, self.trainer.local_rank, processes)

    def state_dict(self) -> dict[str, Any]:
        """Keeps the labels, for a run that goes on in the middle of an epoch."""
        labels = self.pseudo_labels
        return {} if labels is None else dict(vars(labels))

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Takes the labels of a checkpoint.

        Raises:
            ValueError: Training is to go on with another number of images.
        """
        images = len(state_dict["classes"])
        fits = self.trainer is not None and self.trainer.state.fn == TrainerFn.FITTING
        if fits and images != len(self.train_samples):
            raise ValueError(
                f"the checkpoint is of a run on {images} training images, here are "
                f"{len(self.train_samples)}: go on with the same data, or start on new data from "
                "its weights with network.weights"
            )
        self.pseudo_labels = PseudoLabels(**state_dict)

    @property
    def train_samples(self) -> list[Sample]:
        """The training images, in the order of their index."""
        if self.splits is None:
            raise RuntimeError("the data module is not set up: call setup first")
        return self.splits.train

    @property
    def preprocessing(self) -> Preprocessing:
        """What images go through for labelling and evaluation."""
        mean, std = (cast(RGB, tuple(values)) for values in (self.mean, self.std))
        return Preprocessing(self.image_size, mean, std)

    @property
    def rank(self) -> int:
        """This process among those of the Trainer."""
        return self.trainer.global_rank if self.trainer is not None else 0

    @property
    def world_size(self) -> int:
        """The number of processes of the Trainer."""
        return self.trainer.world_size if self.trainer is not None else 1

    @property
    def device(self) -> torch.device:
        """Where batches of cached images are made: the Trainer's device while it runs."""
        if self.trainer is None or self.trainer.state.status != TrainerStatus.RUNNING:
            return torch.device("cpu")
        return self.trainer.strategy.root_device

    def train_dataloader(self) -> EpochLoader:
        """Gives the training batches: fresh for every epoch, from the labels at its start."""
        return EpochLoader(self.epoch_loader, self.iterations)

    def epoch_loader(self) -> DataLoader[TrainBatch]:
        """Builds the loader of the current epoch from the current pseudo labels.

        Raises:
            MisconfigurationException: There are no labels yet.
            ValueError: There is not a label for each training image.
        """
        if self.pseudo_labels is None:
            raise MisconfigurationException(
                "there are no pseudo labels: add the callback PseudoLabeling to the Trainer. "
                "(Lightning's Tuner and LearningRateFinder take a Trainer's callbacks away while "
                "they try: they cannot be used here; compare short runs instead)"
            )
        check_shape("pseudo_labels.classes", self.pseudo_labels.classes, (len(self.train_samples),))
        cameras = torch.tensor([sample.camera_id for sample in self.train_samples])
        sampler = IdentityBatchSampler(
            self.pseudo_labels.classes,
            batch_size=self.pseudo_labels.per_camera or self.batch_size,
            instances=self.instances,
            iterations=self.iterations,
            seed=self.seed,
            epoch=self.trainer.current_epoch if self.trainer is not None else 0,
            start=0 if self.trainer is None else batches_done(self.trainer),
            cameras=cameras if self.use_cameras else None,
            strata=cameras if self.pseudo_labels.per_camera else None,
            spread=self.use_cameras == "spread",
            repeat=self.repeat_images,
            views=self.views,
            rank=self.rank,
            world_size=self.world_size,
        )
        images = TrainImages(
            self.train_samples, self.train_transform, self.pseudo_labels, self.views,
            self.eval_transform if self.plain_view else None,
            cache=self.image_cache, device=self.device,
        )  # fmt: skip
        return self._loader(images, batch_sampler=sampler)

    def labeling_dataloader(self) -> DataLoader[EvalBatch]:
        """Gives this rank's share of the training images, unaugmented, for the label stage.

        The share of a rank is empty where there are fewer batches than ranks.
        """
        return self._sharded(self._eval_images(self.train_samples), self.eval_batch_size)

    def val_dataloader(self) -> DataLoader[EvalBatch] | list[Any]:
        """Gives this rank's share of query and gallery; nothing where the data set has none."""
        if self.splits is None or not self.splits.query:
            return []
        samples = self.splits.query + self.splits.gallery
        images = self._eval_images(samples, num_queries=len(self.splits.query))
        return self._sharded(images, self._block_for_all(len(images)))

    def test_dataloader(self) -> DataLoader[EvalBatch] | list[Any]:
        """Gives the same as `val_dataloader`: re-ID data sets have one query and gallery."""
        return self.val_dataloader()

    def predict_dataloader(self) -> DataLoader[EvalBatch] | list[Any]:
        """Gives query and gallery, or the training images where there are none."""
        images = self._eval_images(self.train_samples)
        block = self._block_for_all(len(images))
        return self.val_dataloader() or self._sharded(images, block)

    def _block_for_all(self, images: int) -> int:
        # Lightning skips a rank without batches, hooks and all: give each at least one.
        return max(1, min(self.eval_batch_size, images // self.world_size))

    def _eval_images(self, samples: list[Sample], num_queries: int = 0) -> EvalImages:
        transform, cache = self.eval_transform, self.image_cache
        return EvalImages(samples, transform, num_queries, cache=cache, device=self.device)

    def _sharded(self, images: EvalImages, block: int) -> DataLoader[EvalBatch]:
        sampler = ShardSampler(images, block_size=block, rank=self.rank, world_size=self.world_size)
        return self._loader(images, sampler=sampler, batch_size=block)

    def _loader(self, images: TrainImages | EvalImages, **options: Any) -> ImageLoader:
        if images.cache is None:
            options["num_workers"] = self.num_workers
            options["pin_memory"] = torch.cuda.is_available()
        return ImageLoader(images, collate_fn=whole, worker_init_fn=outlive_sigterm, **options)
