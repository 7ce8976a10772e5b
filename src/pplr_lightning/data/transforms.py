"""From a decoded image to the tensor the model takes."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms import v2

# ImageNet's statistics, which most pretrained backbones expect.
MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)
RGB = tuple[float, float, float]
ImageTransform = Callable[[Image.Image], Tensor]  # ours, or one of a user's own
PART = 8  # images that stay in the processor's own memory from step to step


def resized(image: Image.Image, image_size: tuple[int, int]) -> np.ndarray:
    """Brings a decoded image to height and width, (3, H, W) uint8."""
    height, width = image_size
    pixels = np.asarray(image.resize((width, height), Image.Resampling.BICUBIC))
    return pixels.transpose(2, 0, 1).copy()


class EvalTransform:
    """The transform of evaluation and labelling, of decoded images or of resized batches.

    Args:
        image_size: Height and width.
        mean: Of each colour, subtracted from values in [0, 1].
        std: Of each colour, by which they then are divided.
    """

    def __init__(self, image_size: tuple[int, int], *, mean: RGB = MEAN, std: RGB = STD) -> None:
        self.image_size = image_size
        self.mean, self.std = mean, std

    def __call__(self, image: Image.Image) -> Tensor:
        """Resizes and normalises a decoded image."""
        return self.batch(torch.from_numpy(resized(image, self.image_size)[None]))[0]

    def batch(self, pixels: Tensor) -> Tensor:
        """Normalises resized images (B, 3, H, W) uint8, on whatever device they are."""
        images = room_for(pixels)
        for part, out in zip(in_parts(pixels), in_parts(images), strict=True):
            normalize_(out.copy_(part), self.mean, self.std)
        return images


class Preprocessing(NamedTuple):
    """What images go through before a model embeds them: `EvalTransform` and its arguments.

    Attributes:
        image_size: Height and width.
        mean: Of each colour, subtracted from values in [0, 1].
        std: Of each colour, by which they then are divided.
    """

    image_size: tuple[int, int]
    mean: RGB = MEAN
    std: RGB = STD

    def transform(self) -> EvalTransform:
        """Builds the transform."""
        return EvalTransform(self.image_size, mean=self.mean, std=self.std)


def contrastive_transform(
    image_size: tuple[int, int], *, mean: RGB = MEAN, std: RGB = STD
) -> v2.Transform:
    """Builds SimCLR's augmentation (Chen et al., ICML 2020) for upright person crops.

    The crop keeps most of the body, and the colour moves as between two cameras: more in light
    and tint than in hue, for a person is known by the colour of the clothes.
    """
    return v2.Compose(
        [
            v2.RandomResizedCrop(
                image_size,
                scale=(0.5, 1.0),
                ratio=(0.35, 0.75),
                interpolation=v2.InterpolationMode.BICUBIC,
                antialias=True,
            ),
            v2.RandomHorizontalFlip(),
            v2.RandomApply([v2.ColorJitter(0.4, 0.4, 0.3, 0.03)], p=0.8),
            v2.RandomGrayscale(p=0.05),
            v2.RandomApply([v2.GaussianBlur(5, sigma=(0.1, 1.5))], p=0.3),
            v2.ToImage(),
            v2.ToDtype(torch.float32, scale=True),
            v2.Normalize(mean, std),
            v2.RandomErasing(p=0.5, scale=(0.02, 0.4), ratio=(0.3, 1 / 0.3), value=0),
        ]
    )


def normalize_(images: Tensor, mean: RGB, std: RGB) -> None:
    """Normalises float images (..., 3, H, W) of values up to 255, in torchvision's steps."""
    center, scale = _columns(tuple(mean), tuple(std), images.device)
    images.mul_(1 / 255).sub_(center).div_(scale)


def room_for(pixels: Tensor) -> Tensor:
    """Makes room for float images: float32, whatever the default in a Trainer's precision is."""
    return torch.empty(pixels.shape, dtype=torch.float32, device=pixels.device)


def in_parts(tensor: Tensor) -> tuple[Tensor, ...]:
    """Splits a batch on the CPU, where each step else waits for memory; no other."""
    return tensor.split(PART if tensor.device.type == "cpu" else len(tensor))


@lru_cache
def _columns(mean: RGB, std: RGB, device: torch.device) -> tuple[Tensor, Tensor]:
    """Sends (3, 1, 1) mean and deviation to a device, once: the host waits for such a copy."""
    center, scale = (
        torch.tensor(values, dtype=torch.float32).view(3, 1, 1) for values in (mean, std)
    )
    return center.to(device), scale.to(device)
