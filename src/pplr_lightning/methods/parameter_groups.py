"""Parameters in groups whose learning rates differ."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from timm.models import group_parameters
from torch import nn

SCALE = "lr_scale"
TIMES = "lr_times"  # by what a method has multiplied a group's rate for this epoch


def layer_groups(
    module: nn.Module, backbones: Sequence[nn.Module], decay: float
) -> list[dict[str, Any]]:
    """Groups the parameters that learn by their depth, the lower the smaller the learning rate.

    Layer-wise decay (as of Bao et al., BEiT, ICLR 2022): what lies behind the backbone has the
    whole learning rate, the backbone's last layer `decay` of it, the one before `decay` of that.
    What a layer is says timm; the stem and the position embeddings are the first.

    Args:
        module: All parameters.
        backbones: Within `module`, one model of timm, or several of the same.
        decay: In (0, 1].

    Returns:
        Groups for an optimiser, each with its share of the rate as `lr_scale`.

    Raises:
        ValueError: `decay` is out of range, or a backbone does not say what its layers are.
    """
    if not 0 < decay <= 1:
        raise ValueError(f"layer_decay={decay}: must lie in (0, 1]; 1 is the same rate everywhere")
    layers: dict[nn.Parameter, int] = {}
    for backbone in backbones:
        matcher: Any = getattr(backbone, "group_matcher", None)
        if matcher is None:
            raise ValueError(
                f"layer_decay={decay}: a {type(backbone).__name__} as backbone does not say what "
                "its layers are (group_matcher); use 1"
            )
        layer_of: dict[str, int] = group_parameters(backbone, matcher(), reverse=True)
        layers |= {parameter: layer_of[name] for name, parameter in backbone.named_parameters()}
    top = 1 + max(layers.values())
    groups: dict[int, list[nn.Parameter]] = {}
    for parameter in module.parameters():
        if parameter.requires_grad:
            groups.setdefault(layers.get(parameter, top), []).append(parameter)
    return [
        {"params": parameters, SCALE: decay ** (top - layer)}
        for layer, parameters in sorted(groups.items())
    ]


def scale_rates(optimizer: Any) -> None:
    """Multiplies each group's learning rate by its `lr_scale`, once."""
    for group in optimizer.param_groups:
        group["lr"] *= group.pop(SCALE, 1.0)
