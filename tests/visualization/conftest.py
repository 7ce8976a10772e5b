from __future__ import annotations

import pytest
import torch
from PIL import Image

from pplr_lightning.data import Market1501, Sample


@pytest.fixture(scope="session")
def splits(drawn):
    return Market1501(drawn).load()


@pytest.fixture(scope="session")
def train(splits) -> list[Sample]:
    """96 images of 12 identities."""
    return splits.train


@pytest.fixture(scope="session")
def odd(tmp_path_factory) -> list[Sample]:
    """Images of odd sizes and modes, and files that are none; no ids are known."""
    folder = tmp_path_factory.mktemp("odd")
    sizes = {"pixel.png": (1, 1), "wide.png": (900, 7), "tall.png": (7, 900)}
    sizes["big.png"] = (900, 1800)
    for name, size in sizes.items():
        Image.new("RGB", size, "orange").save(folder / name)
    Image.new("L", (50, 90), 128).save(folder / "grey.png")
    Image.new("RGBA", (50, 90)).save(folder / "transparent.png")
    (folder / "text.png").write_text("no image")
    names = [*sizes, "grey.png", "transparent.png", "text.png", "missing.png"]
    return [Sample(str(folder / name), -1, -1) for name in names]


@pytest.fixture(scope="session")
def many(train) -> tuple[list[Sample], torch.Tensor]:
    """1,000 images, in 500 clusters of two."""
    return [train[i % len(train)] for i in range(1000)], torch.arange(1000) // 2
