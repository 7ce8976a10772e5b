from __future__ import annotations

import pytest
import torch
from PIL import Image

from pplr_lightning.data.augmentation import TrainTransform
from pplr_lightning.data.transforms import (
    MEAN,
    STD,
    EvalTransform,
    contrastive_transform,
)


@pytest.fixture
def image():
    return Image.new("RGB", (20, 50), (255, 0, 0))


@pytest.mark.parametrize("transform", [EvalTransform, TrainTransform, contrastive_transform])
def test_size_is_height_by_width(image, transform):
    output = transform((64, 32))(image)
    assert output.shape == (3, 64, 32)
    assert output.dtype == torch.float32


def test_evaluation_is_normalised_by_imagenet(image):
    output = EvalTransform((64, 32))(image)
    expected = torch.tensor([(1 - 0.485) / 0.229, -0.456 / 0.224, -0.406 / 0.225])
    assert torch.allclose(output[:, 0, 0], expected, atol=1e-5)


@pytest.mark.parametrize("transform", [EvalTransform, TrainTransform, contrastive_transform])
def test_another_normalisation(image, transform):
    """Of all that draws alike, only the values change."""
    outputs = []
    for options in ({}, {"mean": (0.5, 0.4, 0.3), "std": (0.5, 0.25, 0.1)}):
        torch.manual_seed(0)
        outputs.append(transform((64, 32), **options)(image))
    kept = (outputs[0] != 0).all(0)  # not erased
    colours = outputs[0] * torch.tensor(STD).view(3, 1, 1) + torch.tensor(MEAN).view(3, 1, 1)
    expected = (colours - torch.tensor([0.5, 0.4, 0.3]).view(3, 1, 1)) / torch.tensor(
        [0.5, 0.25, 0.1]
    ).view(3, 1, 1)
    assert kept.any()
    assert torch.allclose(outputs[1][:, kept], expected[:, kept], atol=1e-5)


def test_erasing_fills_with_the_mean_colour(image):
    torch.manual_seed(0)
    output = TrainTransform((64, 32), random_erasing=1.0)(image)
    assert (output == 0).all(0).any()  # zero after normalisation is the mean
    assert MEAN == (0.485, 0.456, 0.406)


def test_augmentation_varies(image):
    torch.manual_seed(0)
    transform = TrainTransform((64, 32))
    assert len({transform(image).sum().item() for _ in range(10)}) > 3
