"""What runs around training: labels before every epoch, evaluation, figures and a record after."""

from pplr_lightning.callbacks.figures import Figures
from pplr_lightning.callbacks.frozen_layers import FrozenLayers
from pplr_lightning.callbacks.interruption import Interrupted, Interruption
from pplr_lightning.callbacks.prediction import FeatureWriter
from pplr_lightning.callbacks.pseudo_labeling import PseudoLabeling
from pplr_lightning.callbacks.retrieval_evaluation import RetrievalEvaluation
from pplr_lightning.callbacks.run_record import RunRecord

__all__ = [
    "FeatureWriter",
    "Figures",
    "FrozenLayers",
    "Interrupted",
    "Interruption",
    "PseudoLabeling",
    "RetrievalEvaluation",
    "RunRecord",
]
