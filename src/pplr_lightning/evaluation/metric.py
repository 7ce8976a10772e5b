"""Retrieval metrics as a torchmetrics `Metric`."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, get_args

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor
from torch.nn import functional
from torchmetrics import Metric
from torchmetrics.utilities import dim_zero_cat
from torchmetrics.utilities.distributed import gather_all_tensors

from pplr_lightning.data.datasets import Clothes, Protocol
from pplr_lightning.distributed import is_distributed
from pplr_lightning.evaluation.protocols import Galleries, check_protocol
from pplr_lightning.evaluation.rankings import Ranking, example_rankings
from pplr_lightning.functional.engines import full_precision, similarity_chunks
from pplr_lightning.functional.reranking import Reranking, search_both_ends
from pplr_lightning.functional.retrieval import query_blocks

RERANKED = "rerank/"  # what the names of a re-ranked gallery's metrics begin with


class ReIDRetrieval(Metric):
    """mAP, mINP and CMC of query-to-gallery retrieval, over any number of processes.

    Images that reach it twice (samplers pad so that ranks have equally many) are counted once, and
    they are put in the order of their index: the value is that of one process. Of tracklets, where
    it is told of any, the means of the frames' features are compared, normalised again.

    Args:
        topk: Ranks of the CMC to report.
        same_camera: Count matches under the query's own camera, too.
        rerank: Report the same metrics of the re-ranked gallery, too (`rerank_distance` with the
            published parameters), under names of their own: `rerank/mAP` and so on.
        protocol: `standard` compares with the whole gallery; `single_gallery_shot` with one image
            of each identity, drawn at random ten times and averaged; `camera_pairs` with one camera
            at a time, and averages over the pairs of cameras (`Galleries`).
        clothes: Where people change their clothes, count matches in others than the query's alone
            (`changed`), or in its own (`same`), and leave out the others. None counts both.

    Raises:
        ValueError: `topk` is empty, or holds a number below 1 or twice; there is no such protocol,
            or one with which nothing can be re-ranked; or `clothes` is none of the two, or does not
            go with `same_camera`.

    Example:
        >>> features = torch.tensor([[1.0, 0.0], [0.8, 0.6], [0.6, 0.8], [0.0, 1.0]])
        >>> persons, cameras = torch.tensor([7, 9, 7, 7]), torch.tensor([0, 1, 1, 1])
        >>> indices = torch.arange(4)
        >>> metric = ReIDRetrieval(topk=(1,))
        >>> metric.update(features, persons, cameras, indices < 1, indices)
        >>> metric.compute()["mAP"]  # the matches have ranks 2 and 3
        0.5833333333333333
    """

    full_state_update = False
    higher_is_better = True
    is_differentiable = False

    features: list[Tensor]
    person_ids: list[Tensor]
    camera_ids: list[Tensor]
    is_query: list[Tensor]
    indices: list[Tensor]
    files: list[Tensor]
    rows: list[Tensor]  # what a row of `features` belongs to: an image, or a tracklet
    _states = ("features", "person_ids", "camera_ids", "is_query", "files", "rows", "indices")

    def __init__(
        self,
        *,
        topk: tuple[int, ...] = (1, 5, 10),
        same_camera: bool = False,
        rerank: bool = False,
        protocol: Protocol = "standard",
        clothes: Clothes | None = None,
        **kwargs: Any,
    ) -> None:
        if not len(topk) or min(topk) < 1 or len({*topk}) < len(topk):
            raise ValueError(
                f"topk={tuple(topk)}: give ranks of 1 or more, each once, such as (1, 5, 10)"
            )
        if clothes not in (None, *get_args(Clothes)):
            choices = ", ".join(get_args(Clothes))
            raise ValueError(f"clothes={clothes!r}: choose one of {choices}, or leave it out")
        if clothes and same_camera:
            raise ValueError(
                f"clothes={clothes!r} with same_camera=True: what a person wears is compared under "
                "other cameras; set same_camera to false"
            )
        super().__init__(**kwargs)
        self.clothes: Clothes | None = clothes
        self.topk = topk
        self.same_camera = same_camera
        self.rerank = rerank
        self.use(protocol)
        self.rankings: list[Ranking] = []  # of a few queries, from the last `compute`
        for name in self._states:
            self.add_state(name, default=[], dist_reduce_fx="cat")

    def use(self, protocol: Protocol) -> None:
        """Goes by another protocol from now on.

        Raises:
            ValueError: There is none of this name, or one with which nothing can be re-ranked.
        """
        check_protocol(protocol)
        if self.rerank and protocol != "standard":
            raise ValueError(
                f"rerank=True: re-ranking looks at the whole gallery, which {protocol} never shows "
                "at once; set rerank to false"
            )
        self.protocol: Protocol = protocol

    def update(
        self,
        features: Tensor,
        person_ids: Tensor,
        camera_ids: Tensor,
        is_query: Tensor,
        indices: Tensor,
        files: Tensor | None = None,
        tracklets: Tensor | None = None,
        clothes: Tensor | None = None,
    ) -> None:
        """Takes L2-normalised features (B, D) and each image's ids, role and index, all (B,).

        A query and a gallery image with the same number in `files` are one file: the query is not
        its own match. None where no query is in the gallery. `tracklets` numbers those of which the
        images are frames, one of a query and of the gallery twice; None, in every call, for single
        images. Of a tracklet the ids of the first frame count, and the features' sum is kept alone.
        `clothes` numbers what people wear, over all of them; needed where the metric looks at it.
        """
        files = indices if files is None else files
        if self.clothes is not None:
            if clothes is None:
                raise ValueError(
                    f"clothes={self.clothes!r}: it is not known what the people wear; leave it out"
                )
            files = clothes  # the query's own file, too, is of its camera and does not count
        rows = indices if tracklets is None else tracklets
        values = [features, person_ids, camera_ids, is_query, files, rows]
        if tracklets is not None:
            numbers, places = tracklets.unique(return_inverse=True)
            first = torch.full_like(numbers, len(rows)).scatter_reduce_(
                0, places, torch.arange(len(rows), device=rows.device), "amin"
            )
            sums = features.new_zeros(len(numbers), features.shape[1], dtype=torch.float64)
            values = [value[first] for value in values]
            values[0] = sums.index_add_(0, places, features.detach().double())
        for name, value in zip(self._states, [*values, indices], strict=True):
            getattr(self, name).append(value)

    def compute(self) -> dict[str, float]:
        """Computes `mAP`, `mINP` and `rank-k`, in [0, 1], and with `rerank` their `rerank/...`.

        Distances are 2 - 2 cos, of some queries at a time; neither they nor the re-ranked ones are
        ever held for all queries. Over several processes each takes a share of the queries and of
        the search for neighbours, and the value is that of one process to the last bit.

        Raises:
            ValueError: There are no queries or no gallery, features are not finite, there are too
                few images to re-rank, no query has a match in the gallery, or a frame of a tracklet
                came twice. Every process raises it.
        """
        features, persons, cameras, is_query, files, rows, indices = (
            dim_zero_cat(getattr(self, name)) for name in self._states
        )
        # The first of each image or tracklet, in the order of their numbers.
        _, first, places = np.unique(rows.cpu().numpy(), return_index=True, return_inverse=True)
        order = torch.from_numpy(first).to(rows.device)
        if not torch.equal(rows, indices):
            features = _pool(features, torch.from_numpy(places).to(rows.device), indices)[places]
        role = is_query[order].bool()
        query, gallery = order[role], order[~role]
        # Whole blocks: a product among other rows may be rounded differently.
        blocks = _share(query_blocks(len(query), len(gallery)), *self._place())

        galleries = Galleries(
            self.protocol,
            persons[gallery],
            cameras[gallery],
            files[gallery],
            own_only=self.clothes == "same",
        )
        query_cameras = cameras[query]
        if self.same_camera:
            cameras = torch.full_like(cameras, int(cameras.min()) - 1)  # that is nobody's
        persons, cameras, files = persons[query], cameras[query], files[query]
        features = features.detach().to(torch.promote_types(features.dtype, torch.float32))
        features = features[torch.cat([query, gallery])]
        queries, images = features[: len(query)], features[len(query) :]
        reranking = self._reranking(features, len(query), blocks) if self.rerank else None

        def score(block: slice, distance: Tensor) -> Tensor:
            ids = persons[block], cameras[block], files[block]
            scores = galleries.score(distance, *ids)
            if reranking is None:
                return scores
            reranking.apply_(distance, block)
            return torch.cat([scores, galleries.score(distance, *ids)], 1)

        parts = _score_blocks(queries, images, blocks, score)
        width = 4 * len(galleries)
        empty = torch.empty(0, 2 * width if self.rerank else width, dtype=torch.float64)
        # Nothing was raised for a bad score yet: what is wrong in one share all will see.
        scores = self._gather(torch.cat([empty, *parts]), features.device)
        values = galleries.summarize(scores[:, :width], query_cameras, self.topk)
        found = galleries.of_queries(scores[:, :width])
        self.rankings = example_rankings(queries, images, *found)
        if self.rerank:
            reranked = galleries.summarize(scores[:, width:], query_cameras, self.topk)
            values |= {f"{RERANKED}{name}": value for name, value in reranked.items()}
        return values

    def _reranking(self, features: Tensor, queries: int, blocks: list[slice]) -> Reranking:
        """Searches this process's share of all images and prepares its queries' re-ranking."""
        place, places = self._place()
        own = slice(place * len(features) // places, (place + 1) * len(features) // places)
        found = (self._gather(part, features.device) for part in search_both_ends(features, own))
        rows = slice(blocks[0].start, blocks[-1].stop) if blocks else slice(0, 0)
        return Reranking(features, *found, queries=queries, rows=rows)

    def _place(self) -> tuple[int, int]:
        """Returns this process's rank and the number of processes that compute together."""
        if not (self._is_synced and is_distributed()):
            return 0, 1
        return dist.get_rank(self.process_group), dist.get_world_size(self.process_group)

    def _gather(self, rows: Tensor, device: torch.device) -> Tensor:
        """Concatenates the (n, ...) CPU rows of all processes, which talk over this device."""
        if self._place() == (0, 1):
            return rows
        gather = self.dist_sync_fn or gather_all_tensors
        return torch.cat(gather(rows.to(device), group=self.process_group)).cpu()


def _pool(sums: Tensor, tracklets: Tensor, indices: Tensor) -> Tensor:
    """Averages the features of each tracklet 0 to T - 1, of which rows are parts: (T, D) float32.

    Sums in float64, in the order of the frames: it matters little, after rounding nothing, where
    parts end.

    Raises:
        ValueError: A frame is among them twice.
    """
    if len(indices.unique()) < len(indices):
        raise ValueError(
            "frames of tracklets came twice, and would count twice: deal them out without repeats, "
            "as PPLRDataModule does"
        )
    whole = sums.new_zeros(int(tracklets.max()) + 1, sums.shape[1])
    return functional.normalize(whole.index_add_(0, tracklets, sums), dim=1).float()


def _score_blocks(
    queries: Tensor,
    gallery: Tensor,
    blocks: list[slice],
    score: Callable[[slice, Tensor], Tensor],
) -> list[Tensor]:
    """Scores blocks of queries (Q, D) by ||a - b||^2 to the gallery (G, D), both of unit length.

    On the CPU each product is one thread's. Threads that share one may round it differently, and
    processes that share a machine have fewer threads than one process.
    """
    if queries.device.type != "cpu":
        distances = (torch.cat(list(similarity_chunks(queries[b], gallery))) for b in blocks)
        return [score(b, d.mul_(-2).add_(2)) for b, d in zip(blocks, distances, strict=True)]

    rows = max((block.stop - block.start for block in blocks), default=0)

    def work(some: list[slice]) -> list[Tensor]:
        torch.set_num_threads(1)
        # Memory that is taken anew for each block would scatter over the heap.
        memory, results = queries.new_empty(rows, len(gallery)), []
        for block in some:
            # Not `similarity_chunks`: it sets switches of the process, which threads must not.
            distance = torch.mm(queries[block], gallery.T, out=memory[: block.stop - block.start])
            results.append(score(block, distance.mul_(-2).add_(2)))
        return results

    threads = torch.get_num_threads()
    shares = [_share(blocks, thread, threads) for thread in range(threads)]
    try:
        with full_precision(queries.device), ThreadPoolExecutor(threads) as pool:
            return [result for results in pool.map(work, shares) for result in results]
    finally:
        torch.set_num_threads(threads)  # a thread's call also counts for threads to come


def _share(blocks: list[slice], part: int, parts: int) -> list[slice]:
    """Consecutive blocks, as many for each part as for the others, or one more."""
    return blocks[part * len(blocks) // parts : (part + 1) * len(blocks) // parts]
