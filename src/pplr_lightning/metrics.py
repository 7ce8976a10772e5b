"""Retrieval metrics as a torchmetrics `Metric`, and the quality of labels."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import torch
import torch.distributed as dist
from sklearn.metrics import adjusted_rand_score
from sklearn.metrics.cluster import pair_confusion_matrix
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities import dim_zero_cat
from torchmetrics.utilities.distributed import gather_all_tensors

from pplr_lightning.distributed import is_distributed
from pplr_lightning.functional.engines import full_precision, similarity_chunks
from pplr_lightning.functional.retrieval import GalleryIndex, query_blocks, summarize_scores


class ReIDRetrieval(Metric):
    """mAP, mINP and CMC of query-to-gallery retrieval, over any number of processes.

    Images that reach it twice (samplers pad so that ranks have equally many) are counted once, and
    they are put in the order of their index: the value is that of one process.

    Args:
        topk: Ranks of the CMC to report.
    """

    full_state_update = False
    higher_is_better = True
    is_differentiable = False

    features: list[Tensor]
    person_ids: list[Tensor]
    camera_ids: list[Tensor]
    is_query: list[Tensor]
    indices: list[Tensor]
    _states = ("features", "person_ids", "camera_ids", "is_query", "indices")

    def __init__(self, *, topk: tuple[int, ...] = (1, 5, 10), **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.topk = topk
        for name in self._states:
            self.add_state(name, default=[], dist_reduce_fx="cat")

    def update(
        self,
        features: Tensor,
        person_ids: Tensor,
        camera_ids: Tensor,
        is_query: Tensor,
        indices: Tensor,
    ) -> None:
        """Takes L2-normalised features (B, D) and each image's ids, role and index, all (B,)."""
        values = (features, person_ids, camera_ids, is_query, indices)
        for name, value in zip(self._states, values, strict=True):
            getattr(self, name).append(value)

    def compute(self) -> dict[str, float]:
        """Computes `mAP`, `mINP` and `rank-k`, each in [0, 1].

        Distances are 2 - 2 cos, of some queries at a time. Over several processes each takes a
        share of the queries, and the value is that of one process to the last bit.

        Raises:
            ValueError: There are no queries or no gallery, features are not finite, or no query has
                a match in the gallery. Every process raises it.
        """
        features, persons, cameras, is_query, indices = (
            dim_zero_cat(getattr(self, name)) for name in self._states
        )
        order = _first_of_each(indices)
        role = is_query[order].bool()
        query, gallery = order[role], order[~role]
        blocks = query_blocks(len(query), len(gallery))
        shared = self._is_synced and is_distributed()
        if shared:
            # Whole blocks: a product among other rows may be rounded differently.
            rank, world = dist.get_rank(self.process_group), dist.get_world_size(self.process_group)
            blocks = _share(blocks, rank, world)

        index = GalleryIndex(persons[gallery], cameras[gallery])
        persons, cameras = persons[query], cameras[query]
        features = features.detach().to(torch.promote_types(features.dtype, torch.float32))
        parts = _score_blocks(
            features[query],
            features[gallery],
            blocks,
            lambda block, distance: index.score(distance, persons[block], cameras[block]),
        )
        scores = torch.cat([torch.empty(0, 4, dtype=torch.float64), *parts])
        if shared:
            # Nothing was raised for a bad score yet: what is wrong in one share all will see.
            gather = self.dist_sync_fn or gather_all_tensors
            scores = torch.cat(gather(scores.to(features.device), group=self.process_group)).cpu()
        return summarize_scores(scores, self.topk)


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


def _first_of_each(indices: Tensor) -> Tensor:
    """Positions of the distinct indices, in the order of the indices."""
    order = torch.argsort(indices, stable=True)
    ordered = indices[order]
    first = torch.ones_like(ordered, dtype=torch.bool)
    first[1:] = ordered[1:] != ordered[:-1]
    return order[first]


class LabelQuality(NamedTuple):
    """How well clusters match identities, over the clustered images only, each in [0, 1]."""

    ari: float
    precision: float
    recall: float


def label_quality(labels: Tensor, person_ids: Tensor) -> LabelQuality:
    """Compares pseudo labels (N,) with identities (N,); outliers (-1) are left out.

    `ari` is the adjusted Rand index (Hubert and Arabie, 1985). `precision` is the share of pairs
    in one cluster that are of one identity, `recall` the share of pairs of one identity, both
    clustered, that are in one cluster. Read them beside the share of outliers.
    """
    clustered = labels >= 0
    found, truth = labels[clustered].numpy(), person_ids[clustered].numpy()
    if not len(found):
        return LabelQuality(0.0, 0.0, 0.0)
    (_, only_found), (only_truth, both) = pair_confusion_matrix(truth, found)
    return LabelQuality(
        ari=float(adjusted_rand_score(truth, found)),
        precision=float(both / max(both + only_found, 1)),
        recall=float(both / max(both + only_truth, 1)),
    )
