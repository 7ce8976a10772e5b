"""The state of every global generator of random numbers."""

from __future__ import annotations

import random

import numpy as np
import torch


def generators() -> tuple:
    """Equal where none of them was used in between."""
    numpy_state = np.random.get_state()[1]  # noqa: NPY002
    return torch.get_rng_state().tolist(), numpy_state.tolist(), random.getstate()
