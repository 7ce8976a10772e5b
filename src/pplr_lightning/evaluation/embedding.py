"""Images in memory or on disk to vectors, without a loader."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torchvision.transforms.v2.functional import to_pil_image

from pplr_lightning.data.images import as_rgb, read_image
from pplr_lightning.data.transforms import Preprocessing
from pplr_lightning.evaluation.extraction import (
    FeatureKind,
    evaluating,
    join_features,
    unit_features,
)
from pplr_lightning.functional.checks import check_count, check_finite
from pplr_lightning.networks import PartNetwork

ImageLike = str | Path | Image.Image | Tensor | NDArray[Any]


@torch.no_grad()
def embed_images(
    network: PartNetwork,
    images: ImageLike | Iterable[ImageLike],
    preprocessing: Preprocessing,
    *,
    kind: FeatureKind = "global",
    batch_size: int = 128,
    bgr: bool = False,
) -> Tensor:
    """Embeds images in evaluation mode, on the network's device.

    Args:
        network: Embeds them; its modes are afterwards what they were.
        images: Files, PIL images, tensors or NumPy arrays, or a tensor or array (N, ...) of them;
            or a single one. Tensors and arrays are (H, W, 3) or (3, H, W); of integers in 0 to 255
            (uint8), or floating-point in [0, 1].
        preprocessing: What they go through.
        kind: Which features, as of `join_features`.
        batch_size: Images at a time, 1 or more.
        bgr: NumPy arrays are of blue, green and red, as OpenCV reads them.

    Returns:
        L2-normalised float32 vectors on the CPU, (N, D).

    Raises:
        ValueError: A file or a tensor is no such image, or `batch_size` is below 1; or a vector
            is not finite, as of weights that are not.
    """
    check_count("batch_size", batch_size)
    if isinstance(images, (str, Path, Image.Image)) or (
        isinstance(images, (Tensor, np.ndarray)) and images.ndim < 4
    ):
        images = [images]
    weight = next(network.parameters())
    transform, left = preprocessing.transform(), iter(images)
    none = torch.empty(0, network.num_features)
    vectors = [join_features(none, none.new_empty(*none.shape, network.num_parts), kind)]
    with evaluating(network):
        while batch := [transform(as_image(image, bgr=bgr)) for image in islice(left, batch_size)]:
            output = network(torch.stack(batch).to(weight.device, weight.dtype))
            vectors.append(join_features(*unit_features(output), kind).cpu())
    found = torch.cat(vectors)
    check_finite(found, "vectors")
    return found


def as_image(image: ImageLike, *, bgr: bool = False) -> Image.Image:
    """Turns a file, a PIL image, a tensor or an array into an upright RGB image of 8 bits.

    Pixels then go the way of a file: an image gives one vector, however it is handed over.

    Args:
        image: As of `embed_images`.
        bgr: An array is of blue, green and red.

    Raises:
        ValueError: It is no image, or an image or a tensor of another shape, type or range.
        OSError: The file cannot be opened or read.
    """
    if isinstance(image, Image.Image):
        return as_rgb(image)
    if isinstance(image, (str, Path)):
        return read_image(str(image))
    reverse = bgr and isinstance(image, np.ndarray)
    if isinstance(image, np.ndarray) and image.dtype.kind in "biuf":
        image = torch.from_numpy(image.copy())  # torch takes no steps backwards, nor read-only
    if not isinstance(image, Tensor):
        raise ValueError(
            f"got {type(image).__name__} for an image: give a path, a PIL image, a tensor or an "
            "array of numbers"
        )
    if image.ndim != 3 or 3 not in (image.shape[0], image.shape[2]) or not image.numel():
        raise ValueError(
            f"got pixels of shape {tuple(image.shape)} for an image: give (3, H, W) or "
            "(H, W, 3), of one pixel or more"
        )
    if image.shape[0] != 3:
        image = image.permute(2, 0, 1)
    if reverse:
        image = image.flip(0)
    if image.is_floating_point():
        low, high = (float(value) for value in image.aminmax())
        if not (low >= 0 and high <= 1):  # NaN, too
            raise ValueError(
                f"got floating-point pixels with values of {low:.4g} to {high:.4g} for an image: "
                "give values in [0, 1], or uint8 in 0 to 255; they are normalised here"
            )
        image = (image * 255).round().to(torch.uint8)
    if image.dtype != torch.uint8:
        raise ValueError(f"got pixels of {image.dtype} for an image: give uint8 or float32")
    return to_pil_image(image.cpu())
