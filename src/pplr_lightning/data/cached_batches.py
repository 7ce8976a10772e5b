"""Batches of images that are in memory, made whole on the device."""

from __future__ import annotations

import warnings
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Literal, TypeGuard, TypeVar

import torch
from lightning.pytorch.utilities import rank_zero_info
from torch import Tensor
from torch.utils.data import DataLoader
from torchvision.transforms import v2

from pplr_lightning.data.augmentation import TrainTransform
from pplr_lightning.data.cache import ImageCache, Node, new_cache
from pplr_lightning.data.datasets import Sample
from pplr_lightning.data.images import EvalBatch, EvalImages, TrainBatch, TrainImages
from pplr_lightning.data.pseudo_labels import PseudoLabels
from pplr_lightning.data.sampler import View
from pplr_lightning.data.transforms import BatchTransform, EvalTransform

T = TypeVar("T")
Batched = TypeVar("Batched", bound=BatchTransform)
Cache = Literal["auto", "ram", "none"]
AHEAD = 2  # batches that are made before they are asked for


def cache_for(
    paths: Sequence[str],
    eval_transform: v2.Transform,
    train_transform: v2.Transform,
    *,
    node: Node,
    cache: Cache,
) -> ImageCache | None:
    """Makes a cache to be filled, where one is wanted and can serve; all ranks must call it.

    Args:
        paths: Of the images, N different ones.
        eval_transform: For labelling and evaluation; an `EvalTransform` as built can be served.
        train_transform: For training; a `TrainTransform` as built can be served.
        node: The processes that share it.
        cache: Whether one is wanted, as of `PPLRDataModule`.

    Returns:
        None where images are to be read from their files.

    Raises:
        ValueError: One is demanded, and cannot serve.
    """
    if cache == "none":
        return None
    must_fit = cache == "ram"
    if is_served(eval_transform, EvalTransform) and is_served(train_transform, TrainTransform):
        # Lightning would advise to take more of them; a cache has no use for any.
        warnings.filterwarnings("ignore", "The '[a-z]+_dataloader' does not have many workers")
        resize, size = eval_transform.transforms[0], eval_transform.image_size
        return new_cache(paths, resize, size, node=node, must_fit=must_fit)
    reason = "the contrastive augmentation, or a transform of your own, needs the files"
    if must_fit:
        raise ValueError(f"data.cache=ram: {reason}; use data.cache auto or none")
    rank_zero_info(f"no cache: {reason}")
    return None


def is_served(transform: v2.Transform, kind: type[Batched]) -> TypeGuard[Batched]:
    """Tells whether a cache can serve a transform: of a kind of ours, as it was built."""
    return isinstance(transform, kind) and transform.serves_batches


class CachedTrainImages(TrainImages):
    """`TrainImages` by the batch, out of a cache: the same images, on a device.

    Args:
        samples: The training images.
        labels: Of all of them.
        transform: The augmentation, drawn on the host, applied on the device.
        cache: Holds the images.
        device: Where the batches are to be.
    """

    def __init__(
        self,
        samples: Sequence[Sample],
        labels: PseudoLabels,
        transform: TrainTransform,
        cache: ImageCache,
        device: torch.device,
    ) -> None:
        super().__init__(samples, labels, transform)
        self.augmentation = transform
        self.cache = cache
        self.device = device
        self.rows = cache.rows(samples)
        self.cameras = torch.tensor([sample.camera_id for sample in samples])

    def __getitems__(self, views: list[View]) -> TrainBatch:
        indices = torch.tensor([view.image for view in views])
        draws = self.augmentation.draw([view.seed for view in views])
        pixels = self.cache.take(self.rows[indices], self.device)
        labels, device = self.labels, self.device
        return TrainBatch(
            images=self.augmentation.batch(pixels, _send(draws, device)),
            indices=_send(indices, device),
            targets=_send(labels.classes[indices], device),
            cameras=_send(self.cameras[indices], device),
            columns={name: _send(c[indices], device) for name, c in labels.columns.items()},
        )


class CachedEvalImages(EvalImages):
    """`EvalImages` by the batch, out of a cache: the same images, on a device.

    Args:
        samples: The images.
        transform: Normalises them, on the device.
        cache: Holds the images.
        device: Where the batches are to be.
        num_queries: So many of the first are queries.
    """

    def __init__(
        self,
        samples: Sequence[Sample],
        transform: EvalTransform,
        cache: ImageCache,
        device: torch.device,
        num_queries: int = 0,
    ) -> None:
        super().__init__(samples, transform, num_queries)
        self.normalization = transform
        self.cache = cache
        self.device = device
        self.rows = cache.rows(samples)
        self.ids = torch.tensor([[sample.person_id, sample.camera_id] for sample in samples])

    def __getitems__(self, positions: list[int]) -> EvalBatch:
        indices = torch.tensor(positions)
        pixels = self.cache.take(self.rows[indices], self.device)
        return EvalBatch(
            self.normalization.batch(pixels),
            *(
                _send(column, self.device)
                for column in (indices, *self.ids[indices].T, indices < self.num_queries)
            ),
        )


class CachedLoader(DataLoader[Any]):
    """Loads batches that the dataset makes whole: `CachedTrainImages` or `CachedEvalImages`.

    On a GPU a thread is two batches ahead. It computes next to nothing there, so that workers
    would only have more to carry; on the CPU it would take from the training what it gives.
    """

    dataset: CachedTrainImages | CachedEvalImages

    def __iter__(self) -> Any:
        batches = super().__iter__()
        device = self.dataset.device
        return prefetched(batches, device) if device.type == "cuda" else batches


def whole(batch: T) -> T:
    """Leaves a batch as the dataset made it; a `collate_fn`."""
    return batch


def prefetched(batches: Iterable[T], device: torch.device, ahead: int = AHEAD) -> Iterator[T]:
    """Yields batches that a thread takes from `batches` ahead of time.

    Args:
        batches: What raises there is raised here, in its turn.
        device: That they are made on.
        ahead: So many are ready or in the making.
    """
    iterator = iter(batches)

    def enter() -> None:
        if device.type == "cuda":  # a new thread would talk to the first GPU
            torch.cuda.set_device(device)

    with ThreadPoolExecutor(1, "batches", initializer=enter) as thread:
        coming = deque(thread.submit(next, iterator, None) for _ in range(ahead))
        while (batch := coming.popleft().result()) is not None:
            coming.append(thread.submit(next, iterator, None))
            yield batch


def _send(tensor: Tensor, device: torch.device) -> Tensor:
    """Has a tensor copied to a device without waiting."""
    if device.type == "cuda":
        tensor = tensor.pin_memory()
    return tensor.to(device, non_blocking=True)
