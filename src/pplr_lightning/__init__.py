"""Unsupervised person re-identification with PPLR on PyTorch Lightning."""

from pplr_lightning.callbacks import PseudoLabeling, RetrievalEvaluation, RunRecord
from pplr_lightning.data import PPLRDataModule
from pplr_lightning.gallery import Gallery, read_embeddings
from pplr_lightning.methods import PPLRModule, SimCLRModule

__version__ = "0.1.0"

__all__ = [
    "Gallery",
    "PPLRDataModule",
    "PPLRModule",
    "PseudoLabeling",
    "RetrievalEvaluation",
    "RunRecord",
    "SimCLRModule",
    "read_embeddings",
]
