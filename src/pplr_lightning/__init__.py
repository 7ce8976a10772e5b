"""Unsupervised person re-identification on PyTorch Lightning: PPLR and its kin.

Names are loaded when they are first asked for: the help of the command line needs none of them.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pplr_lightning.callbacks import Figures, PseudoLabeling, RetrievalEvaluation, RunRecord
    from pplr_lightning.data import PPLRDataModule
    from pplr_lightning.gallery import Gallery, read_embeddings
    from pplr_lightning.labelers import (
        DBSCAN,
        HDBSCAN,
        CameraDBSCAN,
        CameraLinkage,
        Consensus,
        Identities,
        Instances,
        KMeans,
        NeighborComponents,
        SelfPaced,
    )
    from pplr_lightning.methods import (
        ClusterContrastModule,
        DCMIPModule,
        ICEModule,
        IICSModule,
        ISEModule,
        MMTModule,
        PartIdentityModule,
        PPLRModule,
        ReIDModule,
        SimCLRModule,
        SpCLModule,
    )
    from pplr_lightning.networks import AdaptiveNetwork, PartNetwork, WindowNetwork

__version__ = "0.1.0"

__all__ = [
    "DBSCAN",
    "HDBSCAN",
    "AdaptiveNetwork",
    "CameraDBSCAN",
    "CameraLinkage",
    "ClusterContrastModule",
    "Consensus",
    "DCMIPModule",
    "Figures",
    "Gallery",
    "ICEModule",
    "IICSModule",
    "ISEModule",
    "Identities",
    "Instances",
    "KMeans",
    "MMTModule",
    "NeighborComponents",
    "PPLRDataModule",
    "PPLRModule",
    "PartIdentityModule",
    "PartNetwork",
    "PseudoLabeling",
    "ReIDModule",
    "RetrievalEvaluation",
    "RunRecord",
    "SelfPaced",
    "SimCLRModule",
    "SpCLModule",
    "WindowNetwork",
    "read_embeddings",
]

_ROOMS = ("methods", "networks", "labelers", "data", "callbacks", "gallery")


def __getattr__(name: str) -> Any:
    for room in _ROOMS if name in __all__ else ():
        module = importlib.import_module(f"{__name__}.{room}")
        if name in module.__all__:
            return getattr(module, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
