"""Unsupervised person re-identification with PPLR on PyTorch Lightning."""

from pplr_lightning.callbacks import PseudoLabeling, RetrievalEvaluation, RunRecord
from pplr_lightning.data import PPLRDataModule
from pplr_lightning.gallery import Gallery, read_embeddings
from pplr_lightning.module import PPLRModule
from pplr_lightning.pseudo_labels import PseudoLabels
from pplr_lightning.simclr import SimCLRModule

__version__ = "0.1.0"

__all__ = [
    "Gallery",
    "PPLRDataModule",
    "PPLRModule",
    "PseudoLabeling",
    "PseudoLabels",
    "RetrievalEvaluation",
    "RunRecord",
    "SimCLRModule",
    "read_embeddings",
]
