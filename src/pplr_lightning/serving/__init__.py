"""A gallery's search as a page in the browser of the same machine."""
