"""Which images stand in which batch, on which rank."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from torch import Tensor
from torch.utils.data import Dataset, DistributedSampler, Sampler


class View(NamedTuple):
    """One augmented look at one image: the key by which a batch asks for it."""

    image: int
    seed: int


class IdentityBatchSampler(Sampler[list[View]]):
    """Draws P x K batches: K images of each of P clusters (Hermans et al., 2017).

    The batches of the whole job are a function of the seed, the epoch and the step alone; a rank
    takes its contiguous part of each. Clusters are drawn without replacement, permutation after
    permutation, and what does not fill a batch at a permutation's end is left for the next. Where
    a cluster has fewer than K images, its images are repeated (each with another augmentation);
    where there are fewer than P clusters, the clusters are. Without `repeat` neither is: a batch is
    the next P * K images of a row of clusters, of each K images or what it has.

    Args:
        labels: Cluster of each image, (N,); -1 is never drawn.
        batch_size: Images per step over all ranks, P * K.
        instances: Images per cluster, K.
        iterations: Batches per epoch.
        seed: Seed of the run.
        epoch: Epoch, counted from 0.
        start: Batches at the epoch's beginning to leave out, for a run that goes on in its middle;
            those that follow are the same as without.
        cameras: Camera of each image, (N,), to prefer positives from other cameras than the
            first image's; None draws positives uniformly.
        strata: Camera of each image, (N,), where a batch is `batch_size` images of each, cameras in
            order: of P clusters that are drawn among its own. None takes no heed of them.
        spread: Draw one image of each camera, cameras in any order, before a second of any.
        repeat: Repeat images of a cluster that has fewer than K. False is for methods that train on
            single images, each of which then counts once.
        views: Looks at each image. A batch lists the first of each of its images, then the second
            of each in the same order, and so on; no two have one seed.
        rank: This process.
        world_size: Number of processes.

    Raises:
        ValueError: The batch does not divide, or no image has a label.
    """

    def __init__(
        self,
        labels: Tensor,
        *,
        batch_size: int,
        instances: int,
        iterations: int,
        seed: int = 0,
        epoch: int = 0,
        start: int = 0,
        cameras: Tensor | None = None,
        strata: Tensor | None = None,
        spread: bool = False,
        repeat: bool = True,
        views: int = 1,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        parts = [labels] if strata is None else _apart(labels, strata)
        check_batch(batch_size, instances, world_size if strata is None else 1)
        check_batch(batch_size * len(parts), instances, world_size)
        self.strata = [_group_by_label(part.numpy()) for part in parts]
        if not all(self.strata) or not self.strata:
            raise ValueError("no image has a label: there is nothing to draw batches from")
        self.instances = instances
        self.per_stratum = batch_size
        self.batch_size = batch_size * len(parts)
        self.iterations = iterations
        self.seed = seed
        self.epoch = epoch
        self.start = start
        self.cameras = None if cameras is None else cameras.numpy()
        self.spread = spread
        self.repeat = repeat
        self.views = views
        share = self.batch_size // world_size
        self.part = slice(rank * share, (rank + 1) * share)

    def __len__(self) -> int:
        return max(0, self.iterations - self.start)

    def __iter__(self) -> Iterator[list[View]]:
        rng = np.random.default_rng((self.seed, self.epoch))
        draw = self._whole_groups if self.repeat else self._row_of_groups
        batches = [draw(clusters, rng) for clusters in self.strata]
        for step in range(self.iterations):
            indices = np.concatenate([next(part) for part in batches])
            if step < self.start:  # drawn all the same: what follows hangs on the generator
                continue
            # The first numbers are the same however many are asked for.
            seeds = np.random.SeedSequence((self.seed, self.epoch, step)).generate_state(
                self.views * self.batch_size
            )
            yield [
                View(image, seed)
                for part in seeds.reshape(self.views, -1)[:, self.part].tolist()
                for image, seed in zip(indices[self.part].tolist(), part, strict=True)
            ]

    def _whole_groups(
        self, clusters: list[np.ndarray], rng: np.random.Generator
    ) -> Iterator[np.ndarray]:
        """Yields batches of K images of each of P clusters for ever."""
        for identities in self._draw_identities(len(clusters), rng):
            groups = (self._draw_images(clusters[identity], rng) for identity in identities)
            yield np.concatenate([np.resize(group, self.instances) for group in groups])

    def _row_of_groups(
        self, clusters: list[np.ndarray], rng: np.random.Generator
    ) -> Iterator[np.ndarray]:
        """Yields batches of at most K images of each cluster for ever, cut from one row."""
        row = np.empty(0, np.int64)
        while True:
            for identity in rng.permutation(len(clusters)):
                row = np.concatenate([row, self._draw_images(clusters[identity], rng)])
                while len(row) >= self.per_stratum:
                    yield row[: self.per_stratum]
                    row = row[self.per_stratum :]

    def _draw_identities(self, count: int, rng: np.random.Generator) -> Iterator[np.ndarray]:
        """Yields P numbers of `count` clusters for ever."""
        per_batch = self.per_stratum // self.instances
        while True:
            order = rng.permutation(count)
            if len(order) < per_batch:
                yield np.resize(order, per_batch)  # repeats from the start
            for start in range(0, len(order) - per_batch + 1, per_batch):
                yield order[start : start + per_batch]

    def _draw_images(self, members: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Draws K images of one cluster, or all where it has fewer."""
        drawn = rng.permutation(members)
        if self.cameras is not None and self.spread:
            _, first = np.unique(self.cameras[drawn], return_index=True)  # of each camera
            drawn = np.concatenate([rng.permutation(drawn[first]), np.delete(drawn, first)])
        elif self.cameras is not None:
            same = self.cameras[drawn] == self.cameras[drawn[0]]
            same[0] = False  # the first image stays first, other cameras follow
            drawn = drawn[np.argsort(same, kind="stable")]
        return drawn[: self.instances]


def check_batch(batch_size: int, instances: int, world_size: int) -> None:
    """Checks that P x K groups divide over the ranks whole.

    Raises:
        ValueError: They do not.
    """
    if instances < 1 or batch_size < 1 or batch_size % (instances * world_size):
        step = max(instances, 1) * world_size
        below = max(batch_size // step, 1) * step
        raise ValueError(
            f"batch_size={batch_size} does not divide into groups of instances={instances} images "
            f"on {world_size} process{'es' if world_size > 1 else ''}: use a multiple of {step}, "
            f"such as {below} or {below + step}"
        )


def _apart(labels: Tensor, strata: Tensor) -> list[Tensor]:
    """Gives the labels of each stratum, ascending; -1 for images of the others."""
    return [labels.masked_fill(strata != one, -1) for one in strata.unique()]


def _group_by_label(labels: np.ndarray) -> list[np.ndarray]:
    """Lists the images of each cluster, clusters in order."""
    order = np.argsort(labels, kind="stable")
    order = order[labels[order] >= 0]
    if not len(order):
        return []
    boundaries = np.flatnonzero(np.diff(labels[order])) + 1
    return np.split(order, boundaries)


class ShardSampler(DistributedSampler[int]):
    """Gives each rank a contiguous share of the images, in whole blocks, without duplicates.

    With batches of one block each, an image is computed beside the same images whatever the number
    of ranks, so that its features are the same to the last bit. A subclass of
    `DistributedSampler`, because Lightning leaves those as they are.

    Args:
        dataset: The images.
        block_size: Images per block.
        blocks: Numbers of the blocks to give, ascending; None for all.
        rank: This process.
        world_size: Number of processes.
    """

    def __init__(
        self,
        dataset: Dataset[Any],
        *,
        block_size: int,
        blocks: Sequence[int] | None = None,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        super().__init__(dataset, num_replicas=world_size, rank=rank, shuffle=False)
        images = len(dataset)  # type: ignore[arg-type]
        if blocks is None:
            blocks = range(math.ceil(images / block_size))
        first, last = (len(blocks) * share // world_size for share in (rank, rank + 1))
        self.share = [
            image
            for block in blocks[first:last]
            for image in range(block * block_size, min((block + 1) * block_size, images))
        ]

    def __iter__(self) -> Iterator[int]:
        return iter(self.share)

    def __len__(self) -> int:
        return len(self.share)
