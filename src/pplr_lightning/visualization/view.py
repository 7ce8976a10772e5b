"""What a network makes of some training images, for the figures that show it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from pplr_lightning.data import Sample
from pplr_lightning.data.images import BadImageError, ReadableImages
from pplr_lightning.data.transforms import ImageTransform
from pplr_lightning.evaluation.extraction import evaluating, unit_features
from pplr_lightning.networks import PartNetwork, PartOutput


class View(NamedTuple):
    """What a network makes of S images, as they are.

    Attributes:
        indices: Of the images, (S,).
        features: L2-normalised global features, (S, D).
        part_features: L2-normalised, (S, D, P).
        refined: Labels refined by the parts' predictions, (S, C), of an outlier without a meaning;
            None where they are not.
    """

    indices: Tensor
    features: Tensor
    part_features: Tensor
    refined: Tensor | None


class _Shown(ReadableImages):
    """Images of a figure, which does without those whose file is gone, too."""

    left_out = (BadImageError, OSError)


@torch.no_grad()
def view_images(
    network: PartNetwork,
    samples: Sequence[Sample],
    indices: list[int],
    transform: ImageTransform,
    *,
    refine: Callable[[PartOutput, Tensor], Tensor] | None = None,
    batch_size: int = 64,
) -> View:
    """Embeds some images in evaluation mode; those that cannot be read are left out.

    It draws no random numbers, as the iterator of a `DataLoader` would.

    Args:
        network: Embeds them.
        samples: All N training images.
        indices: Which of them.
        transform: From an image to a tensor.
        refine: Makes refined labels (B, C) of an output and the images' indices (B,).
        batch_size: Images at a time.
    """
    images = _Shown(samples, transform)
    weight = next(network.parameters())
    # three empty rows to begin with, as there may be no image
    kept = [torch.empty(0, dtype=torch.int64)]
    features = [torch.empty(0, network.num_features)]
    part_features = [torch.empty(0, network.num_features, network.num_parts)]
    refined = []
    with evaluating(network):
        for start in range(0, len(indices), batch_size):
            batch = images.__getitems__(indices[start : start + batch_size])
            read = batch.indices >= 0
            if not read.any():
                continue
            output = network(batch.images[read].to(weight.device, weight.dtype))
            kept.append(batch.indices[read])
            whole, parts = unit_features(output)
            features.append(whole.cpu())
            part_features.append(parts.cpu())
            refined += [refine(output, kept[-1])] if refine is not None else []
    return View(
        torch.cat(kept),
        torch.cat(features),
        torch.cat(part_features),
        torch.cat(refined or [torch.empty(0, 0)]) if refine is not None else None,
    )
