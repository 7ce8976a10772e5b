"""A run's folder, told as one page."""
