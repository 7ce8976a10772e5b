"""The part-based model and its layers."""

from pplr_lightning.models.classifier import ClusterClassifier
from pplr_lightning.models.norm import GroupBatchNorm, average_running_statistics, share_groups
from pplr_lightning.models.part_model import PartModel, PartOutput

__all__ = [
    "ClusterClassifier",
    "GroupBatchNorm",
    "PartModel",
    "PartOutput",
    "average_running_statistics",
    "share_groups",
]
