"""The embedded training images, as labelers and methods see them."""

from __future__ import annotations

from collections.abc import Callable
from copy import copy
from functools import cached_property
from typing import Literal

import numpy as np
import torch
from lightning.pytorch.utilities import rank_zero_info
from scipy.sparse import csr_matrix
from torch import Tensor

from pplr_lightning.data.pairs import Pairs
from pplr_lightning.functional.checks import check_count, check_features, check_shape
from pplr_lightning.functional.clustering import centroid_rows, sum_rows
from pplr_lightning.functional.constraints import constrain_labels
from pplr_lightning.functional.jaccard import jaccard_rows
from pplr_lightning.functional.neighbors import is_approximate, recall, search
from pplr_lightning.functional.sharding import Share
from pplr_lightning.functional.tracklets import split_tracklets
from pplr_lightning.labelers.stages import Stages

Backend = Literal["auto", "faiss", "faiss-gpu", "torch"]
Index = Literal["flat", "ivf"]


class Space:
    """The embeddings of all N training images, of which each rank holds its share.

    They are made when they are first asked for: a labeler that needs none costs none. Neighbours
    are searched once, for the Jaccard distance and for the cross agreement alike.

    Args:
        embed: Makes this rank's L2-normalised global features (n, D) and part features (n, D, P).
        share: The rows of this rank among the N. One rank alone has its GPU, if it has one with
            room for them, do all that is dense; several talk over the CPU.
        cameras: Camera of each of the N images, -1 where it is not known, (N,).
        persons: Identity of each, likewise; only what is supervised may look at them.
        frames: Number of the frame that each was seen in, of all cameras' frames, likewise.
        scores: Asked after `embed`: what the method says of this rank's images beside their
            features, (n, S), or None.
        stages: Measures `extraction`, `neighbors`, `jaccard` and what labelers and methods add.
        backend: Search with FAISS or torch; `auto` takes the fastest at hand.
        index: `flat` finds the nearest neighbours. `ivf` finds most of them, much faster, for
            50,000 images and more; their recall is measured on a sample and printed.
        probes: Cells that `ivf` searches for each image; more find more.
        num_neighbors: Nearest neighbours of each image that are found in any case, so that they
            need not be searched again where a labeler asks for fewer first.

    Attributes:
        cannot_link: What was seen in one frame, which is of different people: a row of the space
            and the number of the frame in each row, as `functional.dbscan` takes it, (M, 2); None
            without frames.
        frames: Of a space of tracklets, the space of their images and the tracklet of each, (N,);
            None of any other.

    Raises:
        ValueError: There is not a camera, a person or a frame for each image.

    Example:
        >>> space = Space.of(torch.nn.functional.normalize(torch.randn(50, 16), dim=1))
        >>> space.total, space.neighbors(5).shape
        (50, torch.Size([50, 5]))
    """

    def __init__(
        self,
        embed: Callable[[], tuple[Tensor, Tensor]],
        *,
        share: Share,
        cameras: Tensor | None = None,
        persons: Tensor | None = None,
        frames: Tensor | None = None,
        scores: Callable[[], Tensor | None] = lambda: None,
        stages: Stages | None = None,
        backend: Backend = "auto",
        index: Index = "flat",
        probes: int = 64,
        num_neighbors: int = 1,
    ) -> None:
        for name, ids in (("cameras", cameras), ("persons", persons), ("frames", frames)):
            if ids is not None:
                check_shape(name, ids, (share.total,))
        self._embed = embed
        self.share = share
        self.cameras = cameras
        self.persons = persons
        self.cannot_link = None if frames is None else _seen_in(frames)
        self.frames: tuple[Space, Tensor] | None = None
        self._scores = scores
        self.stages = stages or Stages()
        self.backend: Backend = backend
        self.index: Index = index
        self.probes = probes
        self.num_neighbors = num_neighbors
        self._neighbors: Tensor | None = None

    @classmethod
    def of(
        cls,
        features: Tensor,
        part_features: Tensor | None = None,
        *,
        cameras: Tensor | None = None,
        persons: Tensor | None = None,
        frames: Tensor | None = None,
        scores: Tensor | None = None,
    ) -> Space:
        """Makes a space of the features of all images (N, D) and of their parts (N, D, P)."""
        parts = features.new_empty(*features.shape, 0) if part_features is None else part_features
        return cls(
            lambda: (features, parts),
            share=Share(len(features)),
            cameras=cameras,
            persons=persons,
            frames=frames,
            scores=lambda: scores,
        )

    def of_tracklets(self, numbers: Tensor) -> Space:
        """Makes the space of the T tracklets that these images are frames of.

        A tracklet's feature is the mean of its frames' unit features, normalised again, in each
        space. Its camera is that of its frames; its person, too, or -1 where they are of several.
        Tracklets that have a frame of the video in common cannot be linked. That their times
        overlap is not enough: a tracker may lose a person and find it again, under another number
        in between.
        The ranks divide the tracklets evenly, whoever embedded their frames; the features of
        frames are let go as soon as they are pooled.

        Args:
            numbers: Tracklet of each image, each of 0 to T - 1 at least once, (N,).

        Raises:
            ValueError: There is not a tracklet for each image.

        Example:
            >>> features = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.0, 1.0]])
            >>> Space.of(features).of_tracklets(torch.tensor([0, 1, 1])).features
            tensor([[1., 0.],
                    [0., 1.]])
        """
        check_shape("tracklets", numbers, (self.total,))
        first = torch.from_numpy(np.unique(numbers.numpy(), return_index=True)[1])
        tracklets = copy(self)
        tracklets._neighbors = None
        tracklets.frames = (self, numbers)
        tracklets._scores = lambda: None  # those of the frames are let go
        tracklets.__dict__.pop("_embedded", None)
        share = tracklets.share = self.share.divide(len(first))

        def embed() -> tuple[Tensor, Tensor]:
            frames = copy(self)
            frames.stages = Stages()  # the time is that of the tracklets' extraction
            features, part_features = frames.centroids(numbers)
            own = slice(share.start, share.stop)
            return features[own].clone(), part_features[own].clone()

        tracklets._embed = embed
        if self.cameras is not None:
            tracklets.cameras = self.cameras[first]
        if self.persons is not None:
            tracklets.persons = self.persons[first]
            others = numbers[self.persons != tracklets.persons[numbers]]
            tracklets.persons[others] = -1
        if self.cannot_link is not None:
            rows, frames = self.cannot_link.T
            tracklets.cannot_link = torch.stack([numbers[rows], frames], dim=1).unique(dim=0)
        return tracklets

    def split_tracklets(self, numbers: Tensor, factor: float, times: Tensor) -> Tensor:
        """Parts tracklets of these images by `functional.split_tracklets`; every rank calls it.

        Args:
            numbers: Tracklet of each image, each of 0 to T - 1 at least once, (N,).
            factor: How many times more than by chance the two sides of a cut differ, above 0.
            times: Places of the images in time, (N,).

        Returns:
            Tracklets of the images, 0 to T' - 1, (N,).
        """
        features = self.features
        with self.stages("splitting"):
            return split_tracklets(features, numbers, factor=factor, frames=times, share=self.share)

    @property
    def total(self) -> int:
        """Images of all ranks, N."""
        return self.share.total

    @property
    def features(self) -> Tensor:
        """This rank's global features, (n, D)."""
        return self._embedded[0]

    @property
    def part_features(self) -> Tensor:
        """This rank's part features, (n, D, P)."""
        return self._embedded[1]

    @property
    def scores(self) -> Tensor | None:
        """What the method says of this rank's images, (n, S); None where it says nothing."""
        self._embedded  # noqa: B018  # which the scores come with
        return self._scores()

    @cached_property
    def _embedded(self) -> tuple[Tensor, Tensor]:
        with self.stages("extraction"):
            features, part_features = self._embed()
        if len(part_features) != len(features):
            raise ValueError(
                f"got features of {len(features)} images and part features of "
                f"{len(part_features)}; give both of the same images"
            )
        if self.share.alone:
            features, part_features = _to_gpu(features, part_features)
        check_features(features)
        for part in part_features.unbind(2):
            check_features(part, "part_features")
        return features, part_features

    def neighbors(self, k: int) -> Tensor:
        """Finds the k nearest of all images for this rank's, each itself included, (n, k) int64."""
        if self._neighbors is None or self._neighbors.shape[1] < k:
            features = self.features
            with self.stages("neighbors"):
                self._neighbors = self.search(features, max(k, self.num_neighbors))
            if is_approximate(self.index, self.share):
                found = recall(features, self._neighbors, self.share, backend=self.backend)
                rank_zero_info(f"approximate neighbours: a recall of {found:.4f} on a sample")
        return self._neighbors[:, :k]

    def search(self, features: Tensor, k: int) -> Tensor:
        """Does the same in the space of other features of this rank's images, (n, D)."""
        check_count("k", k, self.total)
        return search(
            features,
            k,
            self.share,
            backend=self.backend,
            index=self.index,
            probes=self.probes,
        )

    def jaccard(self, *, k1: int, k2: int, max_distance: float = 1.0) -> csr_matrix:
        """Computes `functional.jaccard_distance` of all images, (N, N), on every rank."""
        neighbors = self.neighbors(max(k1, k2))
        with self.stages("jaccard"):
            rows = jaccard_rows(
                self.features,
                self.share.gather(neighbors.int()),
                self.share,
                k1=k1,
                k2=k2,
                max_distance=max_distance,
            )
            return self.share.gather_sparse(rows)

    def constrain(self, classes: Tensor, pairs: Pairs) -> Tensor:
        """Has classes (N,) obey pairs by `functional.constrain_labels`; every rank calls it."""
        features = self.features
        with self.stages("pairs"):
            return constrain_labels(
                features,
                classes,
                must_link=pairs.must_link,
                cannot_link=pairs.cannot_link,
                dropped=pairs.dropped,
                share=self.share,
            )

    def centroids(self, classes: Tensor) -> tuple[Tensor, Tensor]:
        """Averages each class in each space.

        Args:
            classes: Of all images, -1 for none, (N,).

        Returns:
            L2-normalised means on the CPU, (K, D) and (K, D, P).
        """
        features, part_features = self.features, self.part_features
        own = classes[self.share.start : self.share.stop].to(features.device)
        count = int(classes.max()) + 1
        whole, *parts = (
            centroid_rows(rows, own, count, self.share)
            for rows in (features, *part_features.unbind(2))
        )
        means = torch.stack(parts, dim=2) if parts else whole.new_empty(*whole.shape, 0)
        return whole.cpu(), means.cpu()

    def means(self, classes: Tensor) -> Tensor:
        """Averages the global features of each class, and leaves the means' lengths as they are.

        Args:
            classes: Of all images, -1 for none, (N,).

        Returns:
            Means on the CPU, of length 1 at most, (K, D).
        """
        features = self.features
        own = classes[self.share.start : self.share.stop].to(features.device)
        sizes = torch.bincount(classes[classes >= 0])
        sums = sum_rows(features, own, len(sizes), self.share).cpu()
        return (sums / sizes[:, None]).to(features.dtype)


def _seen_in(frames: Tensor) -> Tensor:
    """Lists images with their frames, but those that are alone in theirs, (M, 2)."""
    rows = (frames >= 0).nonzero()[:, 0]
    _, numbers, counts = frames[rows].unique(return_inverse=True, return_counts=True)
    return torch.stack([rows, numbers], dim=1)[counts[numbers] > 1]


def _to_gpu(*tensors: Tensor) -> tuple[Tensor, ...]:
    """Moves tensors to this process's GPU, if there is one with thrice the room that they take."""
    size = sum(tensor.nbytes for tensor in tensors)
    if not torch.cuda.is_available() or torch.cuda.mem_get_info()[0] < 3 * size:
        return tensors
    return tuple(tensor.cuda() for tensor in tensors)
