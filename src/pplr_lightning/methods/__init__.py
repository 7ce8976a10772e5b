"""The methods, one LightningModule per file; `base.py` is the loop they share."""

from pplr_lightning.methods.base import ReIDModule
from pplr_lightning.methods.cluster_contrast import ClusterContrastModule
from pplr_lightning.methods.dcmip import DCMIPModule
from pplr_lightning.methods.ice import ICEModule
from pplr_lightning.methods.iics import IICSModule
from pplr_lightning.methods.ise import ISEModule
from pplr_lightning.methods.mmt import MMTModule
from pplr_lightning.methods.part_identity import PartIdentityModule
from pplr_lightning.methods.pplr import PPLRModule
from pplr_lightning.methods.schedules import WarmUpCosine
from pplr_lightning.methods.simclr import SimCLRModule
from pplr_lightning.methods.spcl import SpCLModule

__all__ = [
    "ClusterContrastModule",
    "DCMIPModule",
    "ICEModule",
    "IICSModule",
    "ISEModule",
    "MMTModule",
    "PPLRModule",
    "PartIdentityModule",
    "ReIDModule",
    "SimCLRModule",
    "SpCLModule",
    "WarmUpCosine",
]
