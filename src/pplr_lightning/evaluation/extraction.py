"""From a network's output to L2-normalised features, of one batch or of a loader."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor

from pplr_lightning.data import EvalBatch
from pplr_lightning.networks import PartNetwork, PartOutput

FeatureKind = Literal["global", "parts", "both"]


@contextmanager
def evaluating(network: torch.nn.Module) -> Iterator[None]:
    """Puts every submodule into evaluation mode, and back into the mode it was in."""
    modes = [(module, module.training) for module in network.modules()]
    network.eval()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training


def unit_features(output: PartOutput) -> tuple[Tensor, Tensor]:
    """L2-normalises each of the 1 + P vectors of an image: (B, D) and (B, D, P), float32."""
    whole, parts = output.features.float(), output.part_features.float()
    return F.normalize(whole, dim=1), F.normalize(parts, dim=1)


def join_features(features: Tensor, part_features: Tensor, kind: FeatureKind) -> Tensor:
    """Makes the one vector per image that images are compared by.

    From the unit vectors g and p_1 ... p_P of an image:

        global: f = g
        parts:  f = [p_1; ...; p_P] / sqrt(P)
        both:   f = [g; p_1; ...; p_P] / sqrt(1 + P)

    so that the cosine of two images is the mean of the branches' cosines, each of equal weight, as
    is usual for part models (PCB, Sun et al., ECCV 2018). PPLR's authors test on g alone.

    Args:
        features: L2-normalised, (B, D).
        part_features: L2-normalised along D, (B, D, P).
        kind: Which of the three.

    Returns:
        L2-normalised, (B, D), (B, P * D) or (B, (1 + P) * D).

    Raises:
        ValueError: There is no such kind, or there are no parts.
    """
    if kind not in get_args(FeatureKind):
        raise ValueError(f"kind={kind!r}: choose one of {', '.join(get_args(FeatureKind))}")
    if kind == "global":
        return features
    if kind == "parts" and not part_features.shape[2]:
        raise ValueError("features 'parts': the network has no parts; choose 'global'")
    parts = part_features.transpose(1, 2)  # (B, P, D)
    branches = parts if kind == "parts" else torch.cat([features.unsqueeze(1), parts], dim=1)
    return branches.flatten(1) / branches.shape[1] ** 0.5


@torch.no_grad()
def extract_features(network: PartNetwork, batches: Iterable[EvalBatch]) -> tuple[Tensor, Tensor]:
    """Embeds all images of `batches` with the network as it stands.

    Returns:
        Global features (N, D) and part features (N, D, P), float32 on the CPU, each of the
        1 + P vectors of an image L2-normalised; in the order of the batches.
    """
    device = next(network.parameters()).device
    features = [torch.empty(0, network.num_features)]
    part_features = [torch.empty(0, network.num_features, network.num_parts)]

    def keep(rows: tuple[Tensor, Tensor] | None) -> None:
        if rows is not None:
            features.append(rows[0].cpu())
            part_features.append(rows[1].cpu())

    found = None
    with evaluating(network):
        for batch in batches:
            images = batch.images.to(device, next(network.parameters()).dtype, non_blocking=True)
            # The device has the next batch to do while the host waits for the one before.
            before, found = found, unit_features(network(images))
            keep(before)
    keep(found)
    return torch.cat(features), torch.cat(part_features)
