"""What runs around training: labels before every epoch, evaluation after, features on demand."""

from pplr_lightning.callbacks.evaluation import RetrievalEvaluation
from pplr_lightning.callbacks.interruption import Interrupted, Interruption
from pplr_lightning.callbacks.prediction import FeatureWriter
from pplr_lightning.callbacks.pseudo_labeling import PseudoLabeling

__all__ = [
    "FeatureWriter",
    "Interrupted",
    "Interruption",
    "PseudoLabeling",
    "RetrievalEvaluation",
]
