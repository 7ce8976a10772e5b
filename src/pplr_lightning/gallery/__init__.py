"""Galleries: vectors of images on disk, and what searches them."""

from pplr_lightning.gallery.embeddings import Embeddings, read_embeddings, write_embeddings
from pplr_lightning.gallery.gallery import Gallery, Matches
from pplr_lightning.gallery.search_engine import Explanation, Hit, Query, SearchEngine

__all__ = [
    "Embeddings",
    "Explanation",
    "Gallery",
    "Hit",
    "Matches",
    "Query",
    "SearchEngine",
    "read_embeddings",
    "write_embeddings",
]
