"""Backbones of this library's own, which timm then builds by their names as it does its own."""

from __future__ import annotations

from typing import Any

from timm.models import build_model_with_cfg, generate_default_cfgs, register_model
from torch import nn

default_cfgs: dict[str, Any] = {}  # where timm looks for what is published of a model


def register(
    kind: type[nn.Module], name: str, published: dict[str, Any], **architecture: Any
) -> None:
    """Has timm know a backbone by a name.

    Args:
        kind: Its class.
        name: As `timm.create_model` and `model.network.backbone` take it.
        published: Mean, deviation and size of the images that its published weights were trained
            on, and names of its first and last layer, as timm's `PretrainedCfg` has them.
        **architecture: Options of the class that the name stands for.
    """

    def create(pretrained: bool = False, **options: Any) -> nn.Module:
        given = {**architecture, **options}
        return build_model_with_cfg(kind, name, pretrained, **given)

    create.__name__ = name
    default_cfgs.update(generate_default_cfgs({name: published}))
    register_model(create)
