"""Transforms of single images that can transform whole batches of resized ones, too."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.transforms import v2

RGB = tuple[float, float, float]
ERASED_SHARE = (0.02, 0.4)  # of the image's area
ERASED_RATIO = (0.3, 1 / 0.3)  # height by width


def resize(image_size: tuple[int, int]) -> v2.Resize:
    """Builds the step to height and width."""
    return v2.Resize(image_size, interpolation=v2.InterpolationMode.BICUBIC, antialias=True)


def to_tensor(mean: RGB, std: RGB) -> list[v2.Transform]:
    """Builds the steps from a decoded image to normalised floats."""
    return [v2.ToImage(), v2.ToDtype(torch.float32, scale=True), v2.Normalize(mean, std)]


class Draws(NamedTuple):
    """The random numbers of B views of images of height H and width W, all int64.

    Attributes:
        flipped: Which of them are mirrored, ascending, (F,).
        corners: Top and left of the part cut out of the mirrored and padded image, (B, 2).
        erased: Top, left, height and width of what is erased of that part, (B, 4).
    """

    flipped: Tensor
    corners: Tensor
    erased: Tensor


class EvalTransform(v2.Compose):  # type: ignore[misc]  # torchvision has no types
    """The transform of evaluation and labelling, of an image or of a resized batch.

    Args:
        image_size: Height and width.
        mean: Of each colour, subtracted from values in [0, 1].
        std: Of each colour, by which they then are divided.
    """

    def __init__(self, image_size: tuple[int, int], *, mean: RGB, std: RGB) -> None:
        super().__init__([resize(image_size), *to_tensor(mean, std)])
        self.image_size = image_size
        self.mean, self.std = mean, std

    def batch(self, pixels: Tensor) -> Tensor:
        """Normalises resized images (B, 3, H, W) uint8, on whatever device they are."""
        return normalized(pixels, self.mean, self.std)


class TrainTransform(v2.Compose):  # type: ignore[misc]  # torchvision has no types
    """The paper's augmentation, of an image or of a resized batch: the same pixels.

    A single image is transformed under torch's global generator, as torchvision does. For a batch
    the same numbers are drawn of a generator of their own, so that it can be done beside other
    work; then no step goes over single images or waits for the device.

    Args:
        image_size: Height and width.
        padding: Pixels added on each side before an image of the old size is cut out.
        random_erasing: Probability that a rectangle is filled with the mean colour, in [0, 1].
        mean: Of each colour, subtracted from values in [0, 1].
        std: Of each colour, by which they then are divided.
    """

    def __init__(
        self,
        image_size: tuple[int, int],
        *,
        padding: int,
        random_erasing: float,
        mean: RGB,
        std: RGB,
    ) -> None:
        erasing = v2.RandomErasing(random_erasing, ERASED_SHARE, ERASED_RATIO, value=0)
        super().__init__(
            [
                resize(image_size),
                v2.RandomHorizontalFlip(),
                v2.Pad(padding),
                v2.RandomCrop(image_size),
                *to_tensor(mean, std),
                erasing,
            ]
        )
        self.image_size = image_size
        self.padding = padding
        self.random_erasing = random_erasing
        self.mean, self.std = mean, std

    def draw(self, seeds: Sequence[int]) -> Draws:
        """Draws what this transform of one image draws after `torch.manual_seed(seed)`."""
        generator = torch.Generator()
        flipped, corners, erased = [], [], []
        for position, seed in enumerate(seeds):
            generator.manual_seed(seed)
            if _uniform(generator) < 0.5:
                flipped.append(position)
            corners.append([_below(2 * self.padding + 1, generator) for _ in range(2)])
            erases = _uniform(generator) < self.random_erasing
            erased.append(self._draw_rectangle(generator) if erases else (0, 0, 0, 0))
        return Draws(
            torch.tensor(flipped, dtype=torch.int64), torch.tensor(corners), torch.tensor(erased)
        )

    def _draw_rectangle(self, generator: torch.Generator) -> tuple[int, int, int, int]:
        """Draws top, left, height and width; as torchvision, gives up after ten that do not fit."""
        height, width = self.image_size
        for _ in range(10):
            area = height * width * _uniform(generator, *ERASED_SHARE)
            log_ratio = torch.empty(1).uniform_(*_log_ratio(), generator=generator)
            ratio = log_ratio.exp().item()
            h, w = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
            if h < height and w < width:
                return _below(height - h + 1, generator), _below(width - w + 1, generator), h, w
        return 0, 0, 0, 0

    def batch(self, pixels: Tensor, draws: Draws) -> Tensor:
        """Augments resized images (B, 3, H, W) uint8, each by its draws, all on one device."""
        if len(draws.flipped):
            mirrored = pixels.index_select(0, draws.flipped).flip(3)
            pixels = pixels.index_copy(0, draws.flipped, mirrored)
        if self.padding:
            pixels = _crop(F.pad(pixels, [self.padding] * 4), draws.corners, self.image_size)
        images = normalized(pixels, self.mean, self.std)
        if self.random_erasing:
            images.mul_(_outside(draws.erased, self.image_size))  # the mean colour is 0
        return images


def normalized(pixels: Tensor, mean: RGB, std: RGB) -> Tensor:
    """Makes normalised floats of uint8 images (..., 3, H, W), in the steps of `to_tensor`."""
    center, scale = _columns(tuple(mean), tuple(std), pixels.device)
    return pixels.to(torch.float32).mul_(1 / 255).sub_(center).div_(scale)


@lru_cache
def _columns(mean: RGB, std: RGB, device: torch.device) -> tuple[Tensor, Tensor]:
    """Sends (3, 1, 1) mean and deviation to a device, once: the host waits for such a copy."""
    center, scale = (torch.tensor(values).view(3, 1, 1) for values in (mean, std))
    return center.to(device), scale.to(device)


def _crop(pixels: Tensor, corners: Tensor, size: tuple[int, int]) -> Tensor:
    """Cuts a part of `size` (h, w) out of each contiguous image (B, C, H, W).

    As the rows of a part are w neighbours in memory, the whole is a selection of rows from the
    view of all runs of w pixels.
    """
    count, colors, height, width = pixels.shape
    device = pixels.device
    runs = pixels.view(-1).as_strided((pixels.numel() - size[1] + 1, size[1]), (1, 1))
    planes = torch.arange(count * colors, device=device).view(count, colors, 1)
    rows = torch.arange(size[0], device=device) + corners[:, :1].unsqueeze(2)  # (B, 1, h)
    starts = (planes * height + rows) * width + corners[:, 1:].unsqueeze(2)  # (B, C, h)
    return runs.index_select(0, starts.flatten()).view(count, colors, *size)


def _outside(rectangles: Tensor, size: tuple[int, int]) -> Tensor:
    """Marks what lies outside a rectangle each (B, 4): 1, inside 0; (B, 1, H, W)."""
    axes = []
    for start, extent, length in zip((0, 1), (2, 3), size, strict=True):
        first, count = rectangles[:, start, None], rectangles[:, extent, None]
        places = torch.arange(length, device=rectangles.device)
        axes.append(((places < first) | (places >= first + count)).to(torch.float32))
    return torch.maximum(axes[0].unsqueeze(2), axes[1].unsqueeze(1)).unsqueeze(1)


def _uniform(generator: torch.Generator, low: float = 0.0, high: float = 1.0) -> float:
    return torch.empty(1).uniform_(low, high, generator=generator).item()


def _below(end: int, generator: torch.Generator) -> int:
    """Draws from 0 to end - 1; where that is 0 alone, torchvision draws nothing in a crop."""
    return int(torch.randint(end, (), generator=generator)) if end > 1 else 0


@lru_cache
def _log_ratio() -> tuple[float, float]:
    low, high = torch.log(torch.tensor(ERASED_RATIO)).tolist()  # in float32, as torchvision does
    return low, high
