"""From a folder of images to batches."""

from pplr_lightning.data.datamodule import PPLRDataModule
from pplr_lightning.data.datasets import ImageFolder, Market1501, ReIDDataset, Sample, Splits
from pplr_lightning.data.images import EvalBatch, TrainBatch
from pplr_lightning.data.sampler import IdentityBatchSampler
from pplr_lightning.data.synthetic import SyntheticReID

__all__ = [
    "EvalBatch",
    "IdentityBatchSampler",
    "ImageFolder",
    "Market1501",
    "PPLRDataModule",
    "ReIDDataset",
    "Sample",
    "Splits",
    "SyntheticReID",
    "TrainBatch",
]
