"""Reading images: what a batch holds, and the datasets that fill it."""

from __future__ import annotations

import os
import signal
import stat
import threading
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, ClassVar, NamedTuple, cast

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor
from torch.utils.data import Dataset

from pplr_lightning.data.augmentation import TrainTransform
from pplr_lightning.data.cache import ImageCache, send
from pplr_lightning.data.datasets import UNKNOWN, Sample, file_numbers, tracklet_numbers
from pplr_lightning.data.pseudo_labels import PseudoLabels
from pplr_lightning.data.sampler import View
from pplr_lightning.data.transforms import EvalTransform, ImageTransform

CPU = torch.device("cpu")


class TrainBatch(NamedTuple):
    """B training images.

    Attributes:
        images: Augmented, (B, 3, H, W).
        indices: Of the images, (B,).
        targets: Their classes, (B,).
        cameras: Their cameras, -1 where not known, (B,).
        columns: What the method gave for each image at the epoch's begin, by name, (B, ...).
        more_views: The same images under other draws of the augmentation, each (B, 3, H, W); one
            less than `data.views`.
        plain: The same images as in evaluation, (B, 3, H, W), where `data.plain_view` is on.
    """

    images: Tensor
    indices: Tensor
    targets: Tensor
    cameras: Tensor
    columns: dict[str, Tensor]
    more_views: tuple[Tensor, ...] = ()
    plain: Tensor | None = None


class EvalBatch(NamedTuple):
    """B images to embed: (B, 3, H, W), and of each its index, ids, and whether it is a query.

    `files` numbers the files, where some are queries: a query may lie in the gallery, too.
    `tracklets` numbers the tracklets, where there are any; those of queries are others than those
    of the gallery. `clothes` numbers what people wear, where it is known of any, anew for each.
    """

    images: Tensor
    indices: Tensor
    person_ids: Tensor
    camera_ids: Tensor
    is_query: Tensor
    files: Tensor | None = None
    tracklets: Tensor | None = None
    clothes: Tensor | None = None


class BadImageError(ValueError):
    """An image file is cut off or no image; the message names it."""


def read_image(path: str) -> Image.Image:
    """Decodes an image file, as `as_rgb`.

    Raises:
        BadImageError: What the file holds is cut off, or no image.
        OSError: The file cannot be opened or read, which says nothing about the image.
    """
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):  # a pipe would be waited for without end
            raise ValueError("it is no regular file")
        with Image.open(path) as image:
            return as_rgb(image)
    except MemoryError:
        raise
    except Exception as error:  # a broken file makes Pillow raise errors of many types
        if isinstance(error, OSError) and error.errno is not None:  # Pillow's own have none
            raise OSError(error.errno, error.strerror, path) from error
        raise BadImageError(f"{path}: cannot be read as an image ({error})") from error


def as_rgb(image: Image.Image) -> Image.Image:
    """Turns an image as it is stored into an upright RGB image of 8 bits.

    It is turned as its EXIF data say. Of 16 bits the upper 8 are kept, and values of floating point
    are taken for shares of white: Pillow itself would clip both.

    Raises:
        ValueError: It has no pixel, or whole numbers beyond 16 bits or others beyond [0, 1].

    Example:
        >>> as_rgb(Image.new("I;16", (1, 1), 0x8000)).getpixel((0, 0))
        (128, 128, 128)
    """
    if not image.width * image.height:
        raise ValueError(
            f"an image of {image.width} x {image.height} pixels has none: leave it out"
        )
    image.load()
    with suppress(SyntaxError):  # of EXIF data that are none
        image = ImageOps.exif_transpose(image)
    if image.mode == "F" or image.mode.startswith("I"):
        pixels = np.asarray(image)
        top = 1.0 if image.mode == "F" else 2**16 - 1
        low, high = pixels.min(), pixels.max()
        if not (low >= 0 and high <= top):  # NaN, too
            raise ValueError(f"values of {low:.6g} to {high:.6g}: must lie in 0 to {top:.6g}")
        grey = np.rint(pixels * 255) if image.mode == "F" else pixels >> 8
        image = Image.fromarray(grey.astype(np.uint8))
    return image.convert("RGB")


@dataclass(eq=False, repr=False)
class _Images(Dataset[Any]):
    """Images for batches; the subclasses make them.

    Args:
        samples: The images.
        transform: Of each; another than ours is given the files.
        cache: Holds the images.
        device: Where the batches are made, if there is a cache.
    """

    samples: Sequence[Sample]
    transform: ImageTransform
    cache: ImageCache | None = field(default=None, kw_only=True)
    device: torch.device = field(default=CPU, kw_only=True)

    ours: ClassVar[type]  # transforms, as they are, that can be given a batch of a cache

    def __post_init__(self) -> None:
        if type(self.transform) is not self.ours:
            self.cache = None
        if self.cache is None:
            self.device = CPU
        self.ids = torch.tensor([[sample.person_id, sample.camera_id] for sample in self.samples])

    def __len__(self) -> int:
        return len(self.samples)


@dataclass(eq=False, repr=False)
class TrainImages(_Images):
    """Clustered images under augmentation, asked for by a batch of `View`s.

    The augmentation's random numbers come from the view's seed, so that pixels depend neither on
    the number of workers nor on that of ranks, nor on whether there is a cache.

    Args:
        labels: Of all images.
        views: Looks at each image: a batch is asked for by the first of all, then the second of
            all, and so on.
        plain: Transform of a further view, without augmentation; None for no such view.
    """

    labels: PseudoLabels
    views: int = 1
    plain: ImageTransform | None = None

    ours = TrainTransform

    def __getitems__(self, views: list[View]) -> TrainBatch:
        indices = torch.tensor([view.image for view in views[: len(views) // self.views]])
        labels, device = self.labels, self.device
        images, *more = self._augmented(views).chunk(self.views)
        return TrainBatch(
            images=images,
            indices=send(indices, device),
            targets=send(labels.classes[indices], device),
            cameras=send(self.ids[indices, 1], device),
            columns={name: send(c[indices], device) for name, c in labels.columns.items()},
            more_views=tuple(more),
            plain=None if self.plain is None else self._plain(views[: len(indices)], self.plain),
        )

    def _augmented(self, views: list[View]) -> Tensor:
        samples, seeds = [self.samples[view.image] for view in views], [view.seed for view in views]
        if self.cache is not None:
            augmentation = cast(TrainTransform, self.transform)
            draws = send(augmentation.draw(seeds), self.device)
            return augmentation.batch(self.cache.take(samples, self.device), draws)
        images = []
        with torch.random.fork_rng(devices=[]):
            for sample, seed in zip(samples, seeds, strict=True):
                torch.manual_seed(seed)
                images.append(self.transform(read_image(sample.path)))
        return torch.stack(images)

    def _plain(self, views: list[View], transform: ImageTransform) -> Tensor:
        samples = [self.samples[view.image] for view in views]
        if self.cache is not None:
            pixels = self.cache.take(samples, self.device)
            return cast(EvalTransform, transform).batch(pixels)
        return torch.stack([transform(read_image(sample.path)) for sample in samples])


@dataclass(eq=False, repr=False)
class EvalImages(_Images):
    """Images in their order, a batch at a time; the first `num_queries` are queries."""

    num_queries: int = 0

    ours = EvalTransform

    def __post_init__(self) -> None:
        super().__post_init__()
        self.files = torch.tensor(file_numbers(self.samples) if self.num_queries else [])
        self.tracklets: Tensor | None = None
        if self.num_queries and any(one.tracklet_id != UNKNOWN for one in self.samples):
            queries, gallery = (
                torch.tensor(tracklet_numbers(some))
                for some in (self.samples[: self.num_queries], self.samples[self.num_queries :])
            )
            self.tracklets = torch.cat([queries, gallery + queries.max() + 1])
        self.clothes: Tensor | None = None
        if self.num_queries and any(one.clothes_id != UNKNOWN for one in self.samples):
            numbers: dict[object, int] = {}
            keys = (
                row if one.clothes_id == UNKNOWN else (one.person_id, one.clothes_id)
                for row, one in enumerate(self.samples)
            )
            self.clothes = torch.tensor([numbers.setdefault(key, len(numbers)) for key in keys])

    def __getitems__(self, positions: list[int]) -> EvalBatch:
        indices = torch.tensor(positions)
        columns = [indices, *self.ids[indices].T, indices < self.num_queries]
        columns += [self.files[indices]] if self.num_queries else []
        more = {
            name: send(numbers[indices], self.device)
            for name, numbers in (("tracklets", self.tracklets), ("clothes", self.clothes))
            if numbers is not None
        }
        columns = [send(one, self.device) for one in columns]
        return EvalBatch(self._images(positions), *columns, **more)

    def _images(self, positions: list[int]) -> Tensor:
        if self.cache is not None:
            pixels = self.cache.take([self.samples[one] for one in positions], self.device)
            return cast(EvalTransform, self.transform).batch(pixels)
        return torch.stack([self.transform(self._read(one)) for one in positions])

    def _read(self, position: int) -> Image.Image:
        return read_image(self.samples[position].path)


class ReadableImages(EvalImages):
    """Images in their order; one that cannot be read is black, and its index i is -1 - i.

    So it can be left out of what is computed, and every batch keeps its images: an image's
    features are the same to the last bit whatever file beside it is broken.
    """

    left_out: ClassVar[tuple[type[Exception], ...]] = (BadImageError,)

    def __getitems__(self, positions: list[int]) -> EvalBatch:
        self.bad: list[int] = []
        batch = super().__getitems__(positions)
        bad = torch.tensor([position in self.bad for position in positions])
        return batch._replace(indices=torch.where(bad, -1 - batch.indices, batch.indices))

    def _read(self, position: int) -> Image.Image:
        try:
            return super()._read(position)
        except self.left_out:
            self.bad.append(position)
            return Image.new("RGB", (1, 1))


def outlive_sigterm(worker: int) -> None:
    """Makes a loader worker heed SIGTERM from its parent alone; a `worker_init_fn`.

    SLURM and shells send it to every process of a job at once, and a run whose workers are gone
    cannot finish its step and save.
    """
    if not hasattr(signal, "sigwaitinfo"):
        return  # macOS
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})

    def wait() -> None:
        while signal.sigwaitinfo({signal.SIGTERM}).si_pid != os.getppid():
            pass
        os._exit(0)

    threading.Thread(target=wait, daemon=True).start()
