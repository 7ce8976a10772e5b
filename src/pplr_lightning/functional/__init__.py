"""The method as plain functions: tensors in, tensors out, on any device.

Nothing in here imports Lightning or the rest of the package.
"""

from __future__ import annotations

from pplr_lightning.functional.agreement import cross_agreement, relative_agreement
from pplr_lightning.functional.camera_jaccard import camera_jaccard_distance
from pplr_lightning.functional.cannot_link import count_linked
from pplr_lightning.functional.clustering import (
    choose_eps,
    cluster_centroids,
    dbscan,
    neighbor_components,
)
from pplr_lightning.functional.clustering_consensus import cluster_mapping, propagate_labels
from pplr_lightning.functional.constraints import constrain_labels
from pplr_lightning.functional.hierarchy import hdbscan
from pplr_lightning.functional.jaccard import jaccard_distance
from pplr_lightning.functional.linkage import (
    average_linkage,
    camera_distance,
    reciprocal_distance,
    score_similarity,
)
from pplr_lightning.functional.losses import (
    aals_loss,
    camera_contrastive_loss,
    pglr_loss,
)
from pplr_lightning.functional.multi_instance import multi_instance_loss, replace_instances
from pplr_lightning.functional.neighbors import nearest_neighbors
from pplr_lightning.functional.partition import kmeans
from pplr_lightning.functional.prototypes import (
    class_means,
    prototype_loss,
    update_prototypes,
)
from pplr_lightning.functional.reliability import cluster_overlap, keep_reliable
from pplr_lightning.functional.reranking import rerank_distance
from pplr_lightning.functional.retrieval import retrieval_metrics
from pplr_lightning.functional.silhouette import cluster_doubt, label_score, simplified_silhouette
from pplr_lightning.functional.supports import label_preserving_loss, support_samples
from pplr_lightning.functional.teacher_losses import (
    consistency_loss,
    hard_instance_loss,
    soft_cross_entropy,
)
from pplr_lightning.functional.tracklets import split_tracklets
from pplr_lightning.functional.triplets import (
    margin_triplet_loss,
    soft_triplet_loss,
    softmax_triplet_loss,
)

__all__ = [
    "aals_loss",
    "average_linkage",
    "camera_contrastive_loss",
    "camera_distance",
    "camera_jaccard_distance",
    "choose_eps",
    "class_means",
    "cluster_centroids",
    "cluster_doubt",
    "cluster_mapping",
    "cluster_overlap",
    "consistency_loss",
    "constrain_labels",
    "count_linked",
    "cross_agreement",
    "dbscan",
    "hard_instance_loss",
    "hdbscan",
    "jaccard_distance",
    "keep_reliable",
    "kmeans",
    "label_preserving_loss",
    "label_score",
    "margin_triplet_loss",
    "multi_instance_loss",
    "nearest_neighbors",
    "neighbor_components",
    "pglr_loss",
    "propagate_labels",
    "prototype_loss",
    "reciprocal_distance",
    "relative_agreement",
    "replace_instances",
    "rerank_distance",
    "retrieval_metrics",
    "score_similarity",
    "simplified_silhouette",
    "soft_cross_entropy",
    "soft_triplet_loss",
    "softmax_triplet_loss",
    "split_tracklets",
    "support_samples",
    "update_prototypes",
]
