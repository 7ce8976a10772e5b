"""Images in memory or on disk to vectors, without a loader."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice
from pathlib import Path

import torch
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

ImageLike = str | Path | Image.Image | Tensor


@torch.no_grad()
def embed_images(
    network: PartNetwork,
    images: ImageLike | Iterable[ImageLike],
    preprocessing: Preprocessing,
    *,
    kind: FeatureKind = "global",
    batch_size: int = 128,
) -> Tensor:
    """Embeds images in evaluation mode, on the network's device.

    Args:
        network: Embeds them; its modes are afterwards what they were.
        images: Files, PIL images or tensors, or a tensor (N, ...) of them; or a single one.
            Tensors are (H, W, 3) or (3, H, W); of integers in 0 to 255 (uint8), or floating-point
            in [0, 1].
        preprocessing: What they go through.
        kind: Which features, as of `join_features`.
        batch_size: Images at a time, 1 or more.

    Returns:
        L2-normalised float32 vectors on the CPU, (N, D).

    Raises:
        ValueError: A file or a tensor is no such image, or `batch_size` is below 1; or a vector
            is not finite, as of weights that are not.
    """
    check_count("batch_size", batch_size)
    if isinstance(images, (str, Path, Image.Image)) or (
        isinstance(images, Tensor) and images.ndim < 4
    ):
        images = [images]
    weight = next(network.parameters())
    transform, left = preprocessing.transform(), iter(images)
    none = torch.empty(0, network.num_features)
    vectors = [join_features(none, none.new_empty(*none.shape, network.num_parts), kind)]
    with evaluating(network):
        while batch := [transform(as_image(image)) for image in islice(left, batch_size)]:
            output = network(torch.stack(batch).to(weight.device, weight.dtype))
            vectors.append(join_features(*unit_features(output), kind).cpu())
    found = torch.cat(vectors)
    check_finite(found, "vectors")
    return found


def as_image(image: ImageLike) -> Image.Image:
    """Turns a file, a PIL image or a tensor into an upright RGB image of 8 bits, as `as_rgb`.

    A tensor then goes the way of a file: an image gives one vector, however it is handed over.

    Raises:
        ValueError: It is no image, or an image or a tensor of another shape, type or range.
        OSError: The file cannot be opened or read.
    """
    if isinstance(image, Image.Image):
        return as_rgb(image)
    if isinstance(image, (str, Path)):
        return read_image(str(image))
    if not isinstance(image, Tensor):
        raise ValueError(
            f"got {type(image).__name__} for an image: give a path, a PIL image or a tensor"
        )
    if image.ndim != 3 or 3 not in (image.shape[0], image.shape[2]) or not image.numel():
        raise ValueError(
            f"got a tensor of shape {tuple(image.shape)} for an image: give (3, H, W) or "
            "(H, W, 3), of one pixel or more"
        )
    if image.shape[0] != 3:
        image = image.permute(2, 0, 1)
    if image.is_floating_point():
        low, high = (float(value) for value in image.aminmax())
        if not (low >= 0 and high <= 1):  # NaN, too
            raise ValueError(
                f"got a floating-point tensor with values of {low:.4g} to {high:.4g} for an image: "
                "give values in [0, 1], or uint8 in 0 to 255; they are normalised here"
            )
        image = (image * 255).round().to(torch.uint8)
    if image.dtype != torch.uint8:
        raise ValueError(f"got a tensor of {image.dtype} for an image: give uint8 or float32")
    return to_pil_image(image.cpu())
