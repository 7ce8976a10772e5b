from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms import v2

from pplr_lightning.data.augmentation import TrainTransform
from pplr_lightning.data.transforms import MEAN, STD, EvalTransform

SEEDS = [7919 * number for number in range(150)]


@pytest.fixture(scope="module")
def images() -> list[Image.Image]:
    generator = np.random.default_rng(0)
    pixels = generator.integers(0, 256, (len(SEEDS), 23, 11, 3), dtype=np.uint8)
    return [Image.fromarray(one) for one in pixels]


def resized(transform, images) -> torch.Tensor:
    resize = v2.Resize(transform.image_size, v2.InterpolationMode.BICUBIC, antialias=True)
    return torch.stack([v2.functional.pil_to_tensor(resize(one)) for one in images])


@pytest.mark.parametrize(
    ("size", "padding", "erasing"),
    [
        ((32, 16), 3, 0.5),
        ((37, 19), 10, 1.0),
        ((37, 19), 0, 1.0),
        ((24, 12), 1, 0.0),
        ((24, 12), 0, 0.0),
        ((5, 3), 7, 1.0),  # more padding than image, rectangles that often do not fit
    ],
)
def test_a_batch_is_augmented_as_each_image_is(images, size, padding, erasing):
    transform = TrainTransform(size, padding=padding, random_erasing=erasing)
    # torchvision's own steps, under its own random numbers
    steps = v2.Compose(
        [
            v2.Resize(size, interpolation=v2.InterpolationMode.BICUBIC, antialias=True),
            v2.RandomHorizontalFlip(),
            v2.Pad(padding),
            v2.RandomCrop(size),
            v2.ToImage(),
            v2.ToDtype(torch.float32, scale=True),
            v2.Normalize(MEAN, STD),
            v2.RandomErasing(p=erasing, scale=(0.02, 0.4), ratio=(0.3, 1 / 0.3), value=0),
        ]
    )
    expected = []
    for seed, image in zip(SEEDS, images, strict=True):
        torch.manual_seed(seed)
        expected.append(steps(image))
        torch.manual_seed(seed)
        assert torch.equal(transform(image), expected[-1])
    pixels = resized(transform, images)
    before = pixels.clone()
    found = transform.batch(pixels, transform.draw(SEEDS))
    assert torch.equal(found, torch.stack(expected))
    assert torch.equal(pixels, before)
    assert found.is_contiguous()


def test_the_draws_vary():
    draws = TrainTransform((32, 16), padding=3).draw(SEEDS)
    assert draws.shape == (len(SEEDS), 7)
    assert all(len(column.unique()) > 1 for column in draws.T)
    assert draws[:, 1:3].min() == 0
    assert draws[:, 1:3].max() == 6
    assert 50 < draws[:, 0].sum() < 100
    assert 50 < (draws[:, 5] > 0).sum() < 100


def test_drawing_leaves_the_global_generator_alone():
    state = torch.get_rng_state()
    TrainTransform((32, 16), random_erasing=1.0).draw(SEEDS)
    assert torch.equal(torch.get_rng_state(), state)


def test_evaluation_of_a_batch(images):
    mean, std = (0.5, 0.4, 0.3), (0.5, 0.25, 0.1)
    transform = EvalTransform((32, 16), mean=mean, std=std)
    steps = v2.Compose(
        [
            v2.Resize((32, 16), interpolation=v2.InterpolationMode.BICUBIC, antialias=True),
            v2.ToImage(),
            v2.ToDtype(torch.float32, scale=True),
            v2.Normalize(mean, std),
        ]
    )
    expected = torch.stack([steps(image) for image in images])
    assert torch.equal(torch.stack([transform(image) for image in images]), expected)
    assert torch.equal(transform.batch(resized(transform, images)), expected)


def test_whatever_precision_a_trainer_sets(images):
    transform = TrainTransform((32, 16), random_erasing=1.0)
    pixels = resized(transform, images)
    expected = transform.batch(pixels, transform.draw(SEEDS))
    torch.set_default_dtype(torch.float64)
    try:
        other = TrainTransform((32, 16), random_erasing=1.0, mean=(0.485, 0.456, 0.406))
        found = other.batch(pixels, other.draw(SEEDS))
    finally:
        torch.set_default_dtype(torch.float32)
    assert found.dtype == torch.float32
    assert torch.equal(found, expected)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_on_a_gpu_without_waiting_for_it(images):
    transform = TrainTransform((32, 16))
    pixels, draws = resized(transform, images), transform.draw(SEEDS)
    expected = transform.batch(pixels, draws)
    pixels, draws = pixels.cuda(), draws.cuda()
    transform.batch(pixels, draws)
    torch.cuda.set_sync_debug_mode("error")
    try:
        found = transform.batch(pixels, draws)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert (found.cpu() - expected).abs().max() <= 1e-6
