"""Images to vectors, and how well the vectors tell people apart."""
