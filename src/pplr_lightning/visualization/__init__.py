"""What a run has learned, as pictures: functions that return a matplotlib figure."""

from pplr_lightning.visualization.agreement import agreement_figure
from pplr_lightning.visualization.clusters import clusters_figure
from pplr_lightning.visualization.embedding import Embedding, embed, embedding_figure
from pplr_lightning.visualization.label_quality import label_quality_figure
from pplr_lightning.visualization.matches import matches_figure
from pplr_lightning.visualization.page import caption_of, save_figure
from pplr_lightning.visualization.ranking import ranking_figure
from pplr_lightning.visualization.refinement import refinement_figure

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
