"""What a model makes of some training images, for the figures that show it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.transforms import v2

from pplr_lightning.data import Sample
from pplr_lightning.data.images import BadImageError, read_image
from pplr_lightning.extraction import evaluating
from pplr_lightning.functional.losses import refined_labels
from pplr_lightning.models import PartModel
from pplr_lightning.pseudo_labels import PseudoLabels


class View(NamedTuple):
    """What a model makes of S images, as they are.

    Attributes:
        indices: Of the images, (S,).
        part_features: L2-normalised, (S, D, P).
        refined: Labels refined by the parts' predictions, (S, C); of an outlier without a meaning.
    """

    indices: Tensor
    part_features: Tensor
    refined: Tensor


@torch.no_grad()
def view_images(
    model: PartModel,
    samples: Sequence[Sample],
    indices: list[int],
    transform: v2.Transform,
    labels: PseudoLabels,
    *,
    beta: float,
    batch_size: int = 64,
) -> View:
    """Embeds some images in evaluation mode; those that cannot be read are left out.

    It draws no random numbers, as the iterator of a `DataLoader` would.

    Args:
        model: Embeds them.
        samples: All N training images.
        indices: Which of them.
        transform: From an image to a tensor.
        labels: Of all N.
        beta: Share of the cluster label in a refined one.
        batch_size: Images at a time.
    """
    weight = next(model.parameters())
    # three empty rows to begin with, as there may be no image
    kept = torch.empty(0, dtype=torch.int64)
    features = [torch.empty(0, model.num_features, model.num_parts)]
    refined = [torch.empty(0, model.head.classifier.num_clusters)]
    with evaluating(model):
        for start in range(0, len(indices), batch_size):
            chosen, images = _read(samples, indices[start : start + batch_size], transform)
            if not chosen:
                continue
            output = model(torch.stack(images).to(weight.device, weight.dtype))
            rows = torch.tensor(chosen)
            targets = labels.labels[rows].clamp(min=0)
            logits = output.part_logits.float().cpu()
            kept = torch.cat([kept, rows])
            features.append(F.normalize(output.part_features.float(), dim=1).cpu())
            refined.append(refined_labels(logits, targets, labels.agreement[rows], beta=beta))
    return View(kept, torch.cat(features), torch.cat(refined))


def _read(
    samples: Sequence[Sample], indices: list[int], transform: v2.Transform
) -> tuple[list[int], list[Tensor]]:
    chosen, images = [], []
    for index in indices:
        try:
            image = read_image(samples[index].path)
        except BadImageError:
            continue
        chosen.append(index)
        images.append(transform(image))
    return chosen, images
