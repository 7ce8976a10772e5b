"""Galleries: vectors of images on disk, and what searches them."""

from pplr_lightning.gallery.embeddings import Embeddings, read_embeddings, write_embeddings
from pplr_lightning.gallery.gallery import Gallery, Matches

__all__ = ["Embeddings", "Gallery", "Matches", "read_embeddings", "write_embeddings"]
