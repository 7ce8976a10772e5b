"""The method as plain functions: tensors in, tensors out, on any device.

Nothing in here imports Lightning or the rest of the package.
"""

from __future__ import annotations

from .agreement import cross_agreement
from .clustering import cluster_centroids, dbscan
from .jaccard import jaccard_distance
from .losses import (
    aals_loss,
    camera_contrastive_loss,
    pglr_loss,
    softmax_triplet_loss,
)
from .neighbors import nearest_neighbors
from .reranking import rerank_distance
from .retrieval import retrieval_metrics

__all__ = [
    "aals_loss",
    "camera_contrastive_loss",
    "cluster_centroids",
    "cross_agreement",
    "dbscan",
    "jaccard_distance",
    "nearest_neighbors",
    "pglr_loss",
    "rerank_distance",
    "retrieval_metrics",
    "softmax_triplet_loss",
]
