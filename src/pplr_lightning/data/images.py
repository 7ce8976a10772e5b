"""Reading images: what a batch holds, and the datasets that fill it."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

from pplr_lightning.data.datasets import Sample
from pplr_lightning.data.pseudo_labels import PseudoLabels
from pplr_lightning.data.sampler import View


class TrainBatch(NamedTuple):
    """B training images.

    Attributes:
        images: Augmented, (B, 3, H, W).
        indices: Of the images, (B,).
        targets: Their classes, (B,).
        cameras: Their cameras, -1 where not known, (B,).
        columns: What the method gave for each image at the epoch's begin, by name, (B, ...).
    """

    images: Tensor
    indices: Tensor
    targets: Tensor
    cameras: Tensor
    columns: dict[str, Tensor]


class EvalBatch(NamedTuple):
    """B images to embed: (B, 3, H, W), and of each its index, ids, and whether it is a query."""

    images: Tensor
    indices: Tensor
    person_ids: Tensor
    camera_ids: Tensor
    is_query: Tensor


class BadImageError(ValueError):
    """An image file is missing, cut off, or no image; the message names it."""


def read_image(path: str) -> Image.Image:
    """Decodes an image file as RGB.

    Raises:
        BadImageError: The file is missing, cut off, or no image.
    """
    try:
        with Image.open(path) as image:
            return image.convert("RGB")
    except Exception as error:  # a broken file makes Pillow raise errors of many types
        raise BadImageError(f"{path}: cannot be read as an image ({error})") from error


class TrainImages(Dataset[TrainBatch]):
    """Clustered images under augmentation, asked for by `View`.

    The augmentation's random numbers come from the view's seed, so that pixels depend neither on
    the number of workers nor on that of ranks.
    """

    def __init__(
        self,
        samples: Sequence[Sample],
        labels: PseudoLabels,
        transform: Callable[[Image.Image], Tensor],
    ) -> None:
        self.samples = samples
        self.labels = labels
        self.transform = transform

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, view: View) -> TrainBatch:
        sample = self.samples[view.image]
        image = read_image(sample.path)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(view.seed)
            augmented = self.transform(image)
        return TrainBatch(
            augmented,
            torch.tensor(view.image),
            self.labels.classes[view.image],
            torch.tensor(sample.camera_id),
            {name: column[view.image] for name, column in self.labels.columns.items()},
        )


class EvalImages(Dataset[EvalBatch]):
    """Images in their order; the first `num_queries` are queries."""

    def __init__(
        self,
        samples: Sequence[Sample],
        transform: Callable[[Image.Image], Tensor],
        num_queries: int = 0,
    ) -> None:
        self.samples = samples
        self.transform = transform
        self.num_queries = num_queries

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> EvalBatch:
        sample = self.samples[index]
        return EvalBatch(
            self.transform(read_image(sample.path)),
            torch.tensor(index),
            torch.tensor(sample.person_id),
            torch.tensor(sample.camera_id),
            torch.tensor(index < self.num_queries),
        )


class ReadableImages(EvalImages):
    """Images in their order; one that cannot be read is black, and its index i is -1 - i.

    So it can be left out of what is computed, and every batch keeps its images: an image's
    features are the same to the last bit whatever file beside it is broken.
    """

    def __getitem__(self, index: int) -> EvalBatch:
        try:
            return super().__getitem__(index)
        except BadImageError:
            sample = self.samples[index]
            return EvalBatch(
                self.transform(Image.new("RGB", (1, 1))),
                torch.tensor(-1 - index),
                torch.tensor(sample.person_id),
                torch.tensor(sample.camera_id),
                torch.tensor(index < self.num_queries),
            )


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
