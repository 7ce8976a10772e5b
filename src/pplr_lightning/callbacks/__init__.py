"""What runs around training: labels before every epoch, evaluation after."""

from pplr_lightning.callbacks.evaluation import RetrievalEvaluation
from pplr_lightning.callbacks.pseudo_labeling import PseudoLabeling

__all__ = ["PseudoLabeling", "RetrievalEvaluation"]
