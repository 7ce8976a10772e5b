"""Parameters in groups whose learning rates differ."""

from __future__ import annotations

from collections.abc import Sequence
from operator import itemgetter
from typing import Any

from timm.models import group_parameters
from torch import nn

SCALE = "lr_scale"
TIMES = "lr_times"  # by what a method has multiplied a group's rate for this epoch


def layer_groups(
    learning: Sequence[Any], backbones: Sequence[nn.Module], decay: float
) -> list[dict[str, Any]]:
    """Groups the parameters that learn by their depth, the lower the smaller the learning rate.

    Layer-wise decay (as of Bao et al., BEiT, ICLR 2022): what lies behind the backbone has the
    whole learning rate, the backbone's last layer `decay` of it, the one before `decay` of that.
    What a layer is says timm; the stem and the position embeddings are the first.

    Args:
        learning: Parameters, or groups of them with their share of the rate as `lr_scale`, which
            the decay comes on top of.
        backbones: Of which some of these are, one model of timm, or several of the same.
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
    groups: dict[tuple[int, float], list[nn.Parameter]] = {}
    for one in learning:
        group: dict[str, Any] = one if isinstance(one, dict) else {"params": [one]}
        for parameter in group["params"]:
            key = (layers.get(parameter, top), group.get(SCALE, 1.0))
            groups.setdefault(key, []).append(parameter)
    return [
        {"params": parameters, SCALE: share * decay ** (top - layer)}
        for (layer, share), parameters in sorted(groups.items(), key=itemgetter(0))
    ]


def scale_rates(optimizer: Any) -> None:
    """Multiplies each group's learning rate by its `lr_scale`, once."""
    for group in optimizer.param_groups:
        group["lr"] *= group.pop(SCALE, 1.0)
