"""Networks for identities alone: windows of stripes, each with a feature of its own."""

from __future__ import annotations

from typing import Literal, cast

import torch
from torch import Tensor, nn

from pplr_lightning.functional.checks import LARGEST_SIDE, MOST_FEATURES, check_counts
from pplr_lightning.networks.batch_norm import GroupBatchNorm
from pplr_lightning.networks.part_network import PRETRAINED, PartNetwork

Kind = Literal["stripes", "pyramid"]
Pooling = Literal["avg", "avg+max"]


class WindowNetwork(PartNetwork):
    """Backbone with a branch for each of P windows of horizontal stripes, for supervised methods.

    Of PCB (Sun et al., ECCV 2018) each stripe is a window. Of pyramid parts (Zheng et al., CVPR
    2019) each row of neighbouring stripes is, from one to all of them: 21 of 6. There is no neck;
    the global feature is that of the whole map, which is not trained unless it is a window.

    Args:
        backbone: Name of a ConvNet of timm.
        image_size: As of `PartNetwork`.
        weights: What to start from, as of `PartNetwork`.
        stripes: Basic stripes, 1 or more.
        windows: `stripes` or `pyramid`.
        last_stride: 1 or 2, as of `PartNetwork`.
        window_pooling: `avg`, as PCB, or `avg+max`, the sum of both, as the pyramid.
        width: Features of a window after a linear layer, batch normalisation and ReLU of its own,
            as the pyramid has; None leaves it at what was pooled, as PCB is tested.
        norm_batch_size: As of `PartNetwork`.
        chunk_size: As of `PartNetwork`.
        channels_last: As of `PartNetwork`.
        compile: As of `PartNetwork`.

    Raises:
        ValueError: An option is out of range.

    Example:
        >>> network = WindowNetwork("resnet10t", weights=None, windows="pyramid", width=16)
        >>> features, windows = network.eval()(torch.zeros(4, 3, 384, 128))
        >>> features.shape, windows.shape
        (torch.Size([4, 16]), torch.Size([4, 16, 21]))
    """

    def __init__(
        self,
        backbone: str = "resnet50.tv_in1k",
        *,
        image_size: tuple[int, int] = (384, 128),
        weights: str | None = PRETRAINED,
        stripes: int = 6,
        windows: Kind = "stripes",
        last_stride: int = 1,
        window_pooling: Pooling = "avg",
        width: int | None = None,
        norm_batch_size: int | None = 32,
        chunk_size: int | None = None,
        channels_last: bool = False,
        compile: bool = False,
    ) -> None:
        options = {n: v for n, v in locals().items() if n not in ("self", "__class__")}
        check_counts("network", most=LARGEST_SIDE, stripes=stripes)
        if windows not in ("stripes", "pyramid"):
            raise ValueError(f"network.windows={windows!r}: choose stripes or pyramid")
        if window_pooling not in ("avg", "avg+max"):
            raise ValueError(f"network.window_pooling={window_pooling!r}: choose avg or avg+max")
        super().__init__(
            backbone,
            image_size=image_size,
            weights=None,  # until all is there that they are of
            num_parts=0,
            last_stride=last_stride,
            norm_batch_size=norm_batch_size,
            chunk_size=chunk_size,
            channels_last=channels_last,
            compile=compile,
        )
        self.options = options
        self.stripes = stripes
        self.windows = window_bounds(stripes, windows)
        self.window_pooling: Pooling = window_pooling
        self.num_parts = len(self.windows)
        self.neck = cast(GroupBatchNorm, nn.Identity())
        self.reductions = nn.ModuleList()
        if width is not None:
            check_counts("network", most=MOST_FEATURES, width=width)
            self.reductions.extend(
                reduction(self.num_features, width, norm_batch_size) for _ in self.windows
            )
            self.num_features = width
        self._start_from(weights, [])

    def _branches(
        self, feature_map: Tensor, class_token: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        pooled = pool_windows(feature_map, self.windows, self.stripes, self.window_pooling)
        rows = list(pooled.unbind(2))
        if self.reductions:
            rows = [reduce(one) for reduce, one in zip(self.reductions, rows, strict=True)]
            features = rows[-1]  # of all stripes, where windows are a pyramid
        else:
            features = feature_map.mean(dim=(2, 3))
        if not self.num_parts:  # what is exported is the global feature alone
            return features, features.new_empty(*features.shape, 0), features
        return features, torch.stack(rows, dim=2), features


def window_bounds(stripes: int, kind: Kind) -> list[tuple[int, int]]:
    """Lists the first stripe of each window and the one after its last, small windows first.

    Example:
        >>> window_bounds(3, "pyramid")
        [(0, 1), (1, 2), (2, 3), (0, 2), (1, 3), (0, 3)]
    """
    sizes = range(1, 2 if kind == "stripes" else stripes + 1)
    return [(start, start + size) for size in sizes for start in range(stripes - size + 1)]


def pool_windows(
    feature_map: Tensor, windows: list[tuple[int, int]], stripes: int, pooling: Pooling
) -> Tensor:
    """Pools the windows of a map (B, D, h, w), (B, D, P).

    Where `stripes` do not divide its rows, neighbouring ones share a row, as in adaptive pooling.
    """
    height = feature_map.shape[2]
    pooled = []
    for start, stop in windows:
        rows = feature_map[:, :, start * height // stripes : -(-stop * height // stripes)]
        one = rows.mean(dim=(2, 3))
        pooled.append(one if pooling == "avg" else one + rows.amax(dim=(2, 3)))
    return torch.stack(pooled, dim=2)


def reduction(
    num_features: int, width: int, norm_batch_size: int | None, *, bias: bool = True
) -> nn.Sequential:
    """Makes a linear layer, batch normalisation and ReLU, from (B, D) to (B, width)."""
    linear = nn.Linear(num_features, width, bias=bias)
    nn.init.kaiming_normal_(linear.weight, mode="fan_out")
    if bias:
        nn.init.zeros_(linear.bias)
    return nn.Sequential(linear, GroupBatchNorm(width, group_size=norm_batch_size), nn.ReLU())
