"""Networks whose last stages normalise by images and batch, mixed as they learn to."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, cast

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.nn.functional import all_reduce

from pplr_lightning.networks.batch_norm import GroupBatchNorm, GroupBatchNormAct
from pplr_lightning.networks.part_network import PRETRAINED, PartNetwork

START = 0.1  # of the mixing weight, as published: nine tenths are the image's own statistics
# Of ResNets, and of MobileNets and EfficientNets, the stages of a 16th and a 32nd of the image.
STAGES = (("layer3", "layer4"), ("blocks.3", "blocks.4", "blocks.5", "blocks.6"))


class AdaptiveNorm(GroupBatchNorm):
    """AIBN (Xuan & Zhang, CVPR 2021): an image's own statistics mixed with those of its group.

    With m_i and v_i an image's mean and unbiased variance of a channel, M the mean of m_i over the
    group, V the mean of v_i + m_i² less M², and a = min(max(alpha, 0), 1):

        y = (x - (1 - a) m_i - a M) / sqrt((1 - a) v_i + a V + eps) · weight + bias

    In evaluation M and V are running means; m_i and v_i stay the image's own.

    Args:
        norm: Whose parameters, statistics and groups it takes over.
        alpha: The mixing weight, (1,), which several norms may share; it is not theirs to save.

    Example:
        >>> norm = AdaptiveNorm(GroupBatchNorm(4, group_size=2), nn.Parameter(torch.tensor([0.5])))
        >>> norm(torch.randn(4, 4, 3, 2)).shape
        torch.Size([4, 4, 3, 2])
    """

    def __init__(self, norm: GroupBatchNorm, alpha: nn.Parameter) -> None:
        super().__init__(
            norm.num_features, group_size=norm.group_size, eps=norm.eps, momentum=norm.momentum
        )
        self.weight, self.bias = norm.weight, norm.bias
        for name, buffer in norm.named_buffers():
            setattr(self, name, buffer)
        self.after: nn.Module = nn.Identity()
        if isinstance(norm, GroupBatchNormAct):
            self.after = nn.Sequential(norm.drop, norm.act)
        self._alpha = (alpha,)  # in a tuple, so that it is no parameter of the backbone

    def forward(self, input: Tensor) -> Tensor:
        """Normalises maps (B, C, H, W).

        Raises:
            ValueError: They are of one pixel.
        """
        if input[0, 0].numel() < 2:
            raise ValueError("a map of one pixel has no variance: use larger images")
        alpha = self._alpha[0].clamp(0, 1)
        # In half precision sums of squares would lose what matters.
        rows = input.float() if input.dtype.itemsize < 4 else input
        # Not torch.var_mean, which takes four times as long on a CPU.
        own_mean = rows.mean(dim=(2, 3))  # (B, C)
        squares = (rows - own_mean[..., None, None]).square().sum(dim=(2, 3))
        own_var = squares / (input[0, 0].numel() - 1)
        mean, variance = (
            self._of_groups(own_mean, own_var)
            if self.training
            else (self.running_mean, self.running_var)
        )
        mean = (1 - alpha) * own_mean + alpha * mean
        variance = (1 - alpha) * own_var + alpha * variance
        scale = self.weight * (variance + self.eps).rsqrt()
        shift = self.bias - mean * scale
        output = torch.addcmul(
            shift[..., None, None].to(input.dtype), input, scale[..., None, None].to(input.dtype)
        )
        return cast(Tensor, self.after(output))

    def _of_groups(self, own_mean: Tensor, own_var: Tensor) -> tuple[Tensor, Tensor]:
        """Averages each group's images; gives each image its group's mean and variance, (B, C)."""
        groups = self._num_groups(len(own_mean)) if self.ranks is None else 1
        moments = torch.stack([own_mean, own_var + own_mean.square()])  # (2, B, C)
        moments = moments.unflatten(1, (groups, -1)).mean(dim=2)  # (2, G, C)
        if self.ranks is not None:
            moments = all_reduce(moments, group=self.ranks) / dist.get_world_size(self.ranks)
        mean = moments[0]
        variance = (moments[1] - mean.square()).clamp(min=0)  # which rounding may take below
        self._update(mean.detach(), variance.detach())
        each = len(own_mean) // groups
        return mean.repeat_interleave(each, dim=0), variance.repeat_interleave(each, dim=0)


class AdaptiveNetwork(PartNetwork):
    """Backbone of IICS: AIBN in its last stages, and the pooled map as the feature, without a neck.

    The norms of a residual block share one mixing weight. In evaluation an image's feature is the
    mean of its own and its mirror image's.

    Args:
        backbone: Name of a ResNet, MobileNet or EfficientNet of timm.
        image_size: As of `PartNetwork`.
        weights: What to start from, as of `PartNetwork`; mixing weights start at 0.1.
        last_stride: 1 or 2, as of `PartNetwork`.
        norm_batch_size: As of `PartNetwork`.
        channels_last: As of `PartNetwork`.

    Attributes:
        alphas: The mixing weights, one for each block.

    Raises:
        ValueError: An option is out of range, or the backbone is of another family.

    Example:
        >>> network = AdaptiveNetwork("resnet10t", weights=None).eval()
        >>> network(torch.zeros(2, 3, 64, 32)).features.shape, len(network.alphas)
        (torch.Size([2, 512]), 2)
    """

    def __init__(
        self,
        backbone: str = "resnet50.tv_in1k",
        *,
        image_size: tuple[int, int] = (256, 128),
        weights: str | None = PRETRAINED,
        last_stride: int = 1,
        norm_batch_size: int | None = 64,
        channels_last: bool = False,
    ) -> None:
        options = {n: v for n, v in locals().items() if n not in ("self", "__class__")}
        super().__init__(
            backbone,
            image_size=image_size,
            weights=None,  # until all is there that they are of
            num_parts=0,
            last_stride=last_stride,
            norm_batch_size=norm_batch_size,
            channels_last=channels_last,
        )
        self.options = options
        self.neck = cast(GroupBatchNorm, nn.Identity())
        self.alphas = nn.ParameterList()
        for block in _last_blocks(self.backbone, backbone):
            alpha = nn.Parameter(torch.full((1,), START))
            self.alphas.append(alpha)
            _adapt(block, alpha)
        self._start_from(weights, [])

    def _forward(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        rows = super()._forward(images)
        if self.training:
            return rows
        both = zip(rows, super()._forward(images.flip(3)), strict=True)
        features, parts, pooled = ((one + mirrored) / 2 for one, mirrored in both)
        return features, parts, pooled


def _last_blocks(backbone: nn.Module, name: str) -> Iterator[nn.Module]:
    modules = dict(backbone.named_modules())
    for stages in STAGES:
        if all(stage in modules for stage in stages):
            yield from (block for stage in stages for block in modules[stage].children())
            return
    raise ValueError(
        f"network.backbone={name!r}: AIBN is of the residual blocks of a ResNet, a MobileNet or an "
        "EfficientNet; choose one of these"
    )


def _adapt(module: nn.Module, alpha: nn.Parameter) -> None:
    """Replaces every norm below `module` in place."""
    for name, child in module.named_children():
        if isinstance(child, GroupBatchNorm):
            setattr(module, name, AdaptiveNorm(child, alpha))
        else:
            _adapt(cast(Any, child), alpha)
