"""Models for others: on the Hugging Face hub, or as a file that runs without this library."""
