"""Shared inputs: arrays made by the authors' code, and random clustered features."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

REFERENCE = Path(__file__).parents[1] / "reference"


@pytest.fixture(scope="session")
def reference() -> Callable[[str], dict[str, Tensor]]:
    """Load the arrays of one reference file as tensors."""

    def load(name: str) -> dict[str, Tensor]:
        with np.load(REFERENCE / f"{name}.npz") as arrays:
            return {key: torch.from_numpy(np.asarray(arrays[key])) for key in arrays.files}

    return load


@pytest.fixture(scope="session")
def draw_features() -> Callable[..., Tensor]:
    """Draw normalised features (N, D) around random centres; some rows may be duplicates."""

    def draw(seed: int, images: int, *, dim: int = 16, duplicates: int = 0) -> Tensor:
        generator = torch.Generator().manual_seed(seed)
        centres = torch.randn(max(1, images // 12), dim, generator=generator)
        owner = torch.randint(0, len(centres), (images,), generator=generator)
        features = centres[owner] + 0.6 * torch.randn(images, dim, generator=generator)
        features[images - duplicates :] = features[:duplicates]
        return F.normalize(features, dim=1)

    return draw
