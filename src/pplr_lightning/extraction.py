"""From images to L2-normalised features, one pass over a loader."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from torch import Tensor

from pplr_lightning.data import EvalBatch
from pplr_lightning.models import PartModel


@contextmanager
def evaluating(model: torch.nn.Module) -> Iterator[None]:
    """Puts every submodule into evaluation mode, and back into the mode it was in."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training


@torch.no_grad()
def extract_features(model: PartModel, batches: Iterable[EvalBatch]) -> tuple[Tensor, Tensor]:
    """Embeds all images of `batches` with the model as it stands.

    Returns:
        Global features (N, D) and part features (N, D, P), float32 on the CPU, each of the
        1 + P vectors of an image L2-normalised; in the order of the batches.
    """
    device = next(model.parameters()).device
    features = [torch.empty(0, model.num_features)]
    part_features = [torch.empty(0, model.num_features, model.num_parts)]
    with evaluating(model):
        for batch in batches:
            output = model(batch.images.to(device, next(model.parameters()).dtype))
            features.append(F.normalize(output.features.float(), dim=1).cpu())
            part_features.append(F.normalize(output.part_features.float(), dim=1).cpu())
    return torch.cat(features), torch.cat(part_features)
