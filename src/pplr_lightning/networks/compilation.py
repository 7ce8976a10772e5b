"""The backbone as machine code for one shape of batch, by `torch.compile`."""

from __future__ import annotations

import functools
from typing import Any

import torch
from torch import Tensor

from pplr_lightning.networks.backbone import read_map

BACKEND = "inductor"


def read_map_compiled(backbone: Any, images: Tensor) -> tuple[Tensor, Tensor | None]:
    """Computes what `read_map` does, compiled at the first call for each shape of images.

    The compiled code is the function's and not the backbone's, which so keeps the names of its
    weights and can be copied, saved and exported as if it had never been compiled.
    """
    return _compiled(BACKEND)(backbone, images)


@functools.cache
def _compiled(backend: str) -> Any:
    return torch.compile(read_map, backend=backend, dynamic=False)


def check_compiler(device: torch.device) -> None:
    """Compiles a sum, to see before any work that this device can be compiled for.

    Raises:
        ValueError: It cannot.
    """
    numbers = torch.ones(8, device=device)
    try:
        torch.compile(torch.add, backend=BACKEND, dynamic=False)(numbers, numbers)
    except Exception as error:  # of torch's own kinds, or of what it calls
        reason = str(error).strip().splitlines() or [type(error).__name__]
        raise ValueError(
            f"model.network.compile=true cannot compile for {device.type} here ({reason[0]}): "
            f"install {'a C++ compiler' if device.type == 'cpu' else 'Triton and a C compiler'}, "
            "or set model.network.compile to false"
        ) from error
