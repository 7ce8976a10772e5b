"""Every compiled loop called once, so that none is compiled in the middle of work."""

from __future__ import annotations

import time

import torch

from pplr_lightning.functional.agreement import overlap
from pplr_lightning.functional.jaccard import jaccard_distance
from pplr_lightning.functional.retrieval import retrieval_metrics


def compile_loops() -> float:
    """Compile the loops of labels and metrics, or load them where this machine has compiled them.

    Returns:
        The seconds it took: some 15 at the first time, far below 1 later.
    """
    start = time.perf_counter()
    features = torch.eye(8)
    neighbors = torch.arange(8)[:, None].add(torch.arange(3)) % 8  # not searched: no GPU is woken
    jaccard_distance(features, k1=3, k2=2, neighbors=neighbors)
    overlap(neighbors, neighbors, k=2)
    ids, cameras = torch.arange(8) % 2, torch.arange(8) % 3
    retrieval_metrics(features, ids, ids, cameras, cameras)
    return time.perf_counter() - start
