"""What a run has learned, as pictures: functions that return a matplotlib figure."""

from pplr_lightning.visualization.agreement_figure import agreement_figure
from pplr_lightning.visualization.clusters_figure import clusters_figure
from pplr_lightning.visualization.embedding_figure import Embedding, embed, embedding_figure
from pplr_lightning.visualization.label_quality_figure import label_quality_figure
from pplr_lightning.visualization.layout import caption_of, save_figure
from pplr_lightning.visualization.matches_figure import matches_figure
from pplr_lightning.visualization.ranking_figure import ranking_figure
from pplr_lightning.visualization.refinement_figure import refinement_figure

__all__ = [
    "Embedding",
    "agreement_figure",
    "caption_of",
    "clusters_figure",
    "embed",
    "embedding_figure",
    "label_quality_figure",
    "matches_figure",
    "ranking_figure",
    "refinement_figure",
    "save_figure",
]
