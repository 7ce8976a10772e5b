"""From a folder of images to batches."""

from pplr_lightning.data.clothes_sets import LTCC, PRCC
from pplr_lightning.data.cuhk import CUHK01, CUHK02, CUHK03Classic
from pplr_lightning.data.datamodule import PPLRDataModule
from pplr_lightning.data.datasets import ReIDDataset, Sample, Splits
from pplr_lightning.data.image_folder import ImageFolder
from pplr_lightning.data.images import EvalBatch, TrainBatch
from pplr_lightning.data.joined import Joined
from pplr_lightning.data.listed_videos import LSVID, MARS
from pplr_lightning.data.market_layout import (
    CUHK03,
    DukeMTMCreID,
    Market1501,
    MarketLayout,
    OccludedDuke,
    PersonX,
    VeRi776,
)
from pplr_lightning.data.msmt17 import MSMT17
from pplr_lightning.data.occluded import OccludedREID, PDukeMTMCreID
from pplr_lightning.data.sampler import IdentityBatchSampler
from pplr_lightning.data.small_sets import GRID, PRID2011, QMULiLIDS, VIPeR
from pplr_lightning.data.synthetic import SyntheticReID
from pplr_lightning.data.video_sets import ILIDSVID, LPW, DukeMTMCVideoReID, PRID2011Video

__all__ = [
    "CUHK01",
    "CUHK02",
    "CUHK03",
    "GRID",
    "ILIDSVID",
    "LPW",
    "LSVID",
    "LTCC",
    "MARS",
    "MSMT17",
    "PRCC",
    "PRID2011",
    "CUHK03Classic",
    "DukeMTMCVideoReID",
    "DukeMTMCreID",
    "EvalBatch",
    "IdentityBatchSampler",
    "ImageFolder",
    "Joined",
    "Market1501",
    "MarketLayout",
    "OccludedDuke",
    "OccludedREID",
    "PDukeMTMCreID",
    "PPLRDataModule",
    "PRID2011Video",
    "PersonX",
    "QMULiLIDS",
    "ReIDDataset",
    "Sample",
    "Splits",
    "SyntheticReID",
    "TrainBatch",
    "VIPeR",
    "VeRi776",
]
