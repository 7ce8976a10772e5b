"""From embeddings to one class per image, -1 for none: one way to do it per file."""

from pplr_lightning.labelers.camera_dbscan import CameraDBSCAN
from pplr_lightning.labelers.camera_linkage import CameraLinkage
from pplr_lightning.labelers.consensus import Consensus
from pplr_lightning.labelers.dbscan import DBSCAN
from pplr_lightning.labelers.grid import GridLabels, Setting, candidates, label_grid
from pplr_lightning.labelers.hdbscan import HDBSCAN
from pplr_lightning.labelers.identities import Identities
from pplr_lightning.labelers.instances import Instances
from pplr_lightning.labelers.kmeans import KMeans
from pplr_lightning.labelers.labeler import Labeler
from pplr_lightning.labelers.neighbor_components import NeighborComponents
from pplr_lightning.labelers.self_paced import SelfPaced
from pplr_lightning.labelers.space import Space

__all__ = [
    "DBSCAN",
    "HDBSCAN",
    "CameraDBSCAN",
    "CameraLinkage",
    "Consensus",
    "GridLabels",
    "Identities",
    "Instances",
    "KMeans",
    "Labeler",
    "NeighborComponents",
    "SelfPaced",
    "Setting",
    "Space",
    "candidates",
    "label_grid",
]
