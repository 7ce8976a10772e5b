"""Files of weights: read without executing code, recognised, loaded, written whole."""
