"""Galleries: vectors of images on disk, and what searches them."""

from pplr_lightning.gallery.embeddings import Embeddings, read_embeddings, write_embeddings
from pplr_lightning.gallery.finder import Explanation, Finder, Hit, Query
from pplr_lightning.gallery.gallery import Gallery, Matches

__all__ = [
    "Embeddings",
    "Explanation",
    "Finder",
    "Gallery",
    "Hit",
    "Matches",
    "Query",
    "read_embeddings",
    "write_embeddings",
]
