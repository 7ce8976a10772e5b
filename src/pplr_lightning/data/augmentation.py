"""The paper's augmentation, by the batch."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from pplr_lightning.data.transforms import (
    MEAN,
    RGB,
    STD,
    in_parts,
    normalize_,
    resized,
    room_for,
)

ERASED_SHARE = (0.02, 0.4)  # of the image's area
# Of height by width, rounded as torchvision does.
ERASED_LOG_RATIO = torch.tensor((0.3, 1 / 0.3), dtype=torch.float32).log().tolist()


class TrainTransform:
    """The paper's augmentation (Sec. 4.2), of decoded images or of resized batches.

    Its numbers are those that torchvision's transforms draw: for a single image of torch's global
    generator, for a batch of one of their own, so that it can be done beside other work. No step
    goes over single images or waits for the device.

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
        padding: int = 10,
        random_erasing: float = 0.5,
        mean: RGB = MEAN,
        std: RGB = STD,
    ) -> None:
        self.image_size = image_size
        self.padding = padding
        self.random_erasing = random_erasing
        self.mean, self.std = mean, std

    def __call__(self, image: Image.Image) -> Tensor:
        """Resizes and augments a decoded image."""
        pixels = torch.from_numpy(resized(image, self.image_size)[None])
        return self.batch(pixels, torch.tensor([self._draw(torch.default_generator)]))[0]

    def draw(self, seeds: Sequence[int]) -> Tensor:
        """Draws for each image what is drawn for a single one after `torch.manual_seed(seed)`.

        Returns:
            (B, 7) int64: 1 where the image is mirrored; top and left of the part that is cut out
            of the padded image; top, left, height and width of what is erased of that part.
        """
        generator = torch.Generator()
        return torch.tensor([self._draw(generator.manual_seed(seed)) for seed in seeds])

    def _draw(self, generator: torch.Generator) -> tuple[int, ...]:
        mirrored = _uniform(generator) < 0.5
        corner = [_below(2 * self.padding + 1, generator) for _ in range(2)]
        erases = _uniform(generator) < self.random_erasing
        rectangle = self._draw_rectangle(generator) if erases else (0, 0, 0, 0)
        return int(mirrored), *corner, *rectangle

    def _draw_rectangle(self, generator: torch.Generator) -> tuple[int, int, int, int]:
        """Draws top, left, height and width; as torchvision, gives up after ten that do not fit."""
        height, width = self.image_size
        for _ in range(10):
            area = height * width * _uniform(generator, *ERASED_SHARE)
            log_ratio = torch.empty(1, dtype=torch.float32)
            ratio = log_ratio.uniform_(*ERASED_LOG_RATIO, generator=generator).exp().item()
            h, w = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
            if h < height and w < width:
                return _below(height - h + 1, generator), _below(width - w + 1, generator), h, w
        return 0, 0, 0, 0

    def batch(self, pixels: Tensor, draws: Tensor) -> Tensor:
        """Augments resized images (B, 3, H, W) uint8, each by its draws, all on one device."""
        images = room_for(pixels)
        parts = (in_parts(tensor) for tensor in (pixels, draws, images))
        for part, numbers, out in zip(*parts, strict=True):
            padded = F.pad(part, [self.padding] * 4)
            out.copy_(_crop(padded, numbers[:, 0], numbers[:, 1:3], self.image_size))
            normalize_(out, self.mean, self.std)
            if self.random_erasing:
                out.mul_(_outside(numbers[:, 3:], self.image_size))  # 0 is the mean colour
        return images


def _crop(pixels: Tensor, mirrored: Tensor, corners: Tensor, size: tuple[int, int]) -> Tensor:
    """Cuts a part of `size` (h, w) out of each of (B, C, H, W), mirrored where that is 1.

    As the rows of a part are w neighbours in memory, the whole is a selection of rows from the
    view of all runs of w pixels.
    """
    count, colors, height, width = pixels.shape
    both = torch.cat([pixels, pixels.flip(3)]).view(-1)
    runs = both.as_strided((len(both) - size[1] + 1, size[1]), (1, 1))
    images = torch.arange(count, device=pixels.device) + count * mirrored
    planes = colors * images[:, None] + torch.arange(colors, device=pixels.device)  # (B, C)
    rows = corners[:, :1] + torch.arange(size[0], device=pixels.device)  # (B, h)
    starts = (planes[:, :, None] * height + rows[:, None]) * width + corners[:, None, 1:]
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
    number = torch.empty(1, dtype=torch.float32)  # whatever the default: another draws otherwise
    return number.uniform_(low, high, generator=generator).item()


def _below(end: int, generator: torch.Generator) -> int:
    """Draws from 0 to end - 1; where that is 0 alone, torchvision draws nothing in a crop."""
    return int(torch.randint(end, (), generator=generator)) if end > 1 else 0
