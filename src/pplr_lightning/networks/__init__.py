"""From images to embeddings: backbones with part heads, and what methods put on top of them."""

from pplr_lightning.networks.adaptive_network import AdaptiveNetwork
from pplr_lightning.networks.batch_norm import (
    GroupBatchNorm,
    average_running_statistics,
    share_groups,
)
from pplr_lightning.networks.classifier import ClusterClassifier
from pplr_lightning.networks.part_network import PartNetwork, PartOutput
from pplr_lightning.networks.window_network import WindowNetwork

__all__ = [
    "AdaptiveNetwork",
    "ClusterClassifier",
    "GroupBatchNorm",
    "PartNetwork",
    "PartOutput",
    "WindowNetwork",
    "average_running_statistics",
    "share_groups",
]
