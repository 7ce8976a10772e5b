"""Batch normalisation whose groups do not depend on the number of GPUs."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from timm.layers import BatchNormAct2d
from torch import Tensor, nn

from pplr_lightning.distributed import average_, is_distributed
from pplr_lightning.networks.shared_batch_norm import SharedBatchNorm


class GroupBatchNorm(nn.BatchNorm2d):
    """Batch normalisation over groups of consecutive images, (B, C) or (B, C, H, W).

    The authors' four GPUs normalise 16 of 64 images each, and their results depend on it. Here
    the statistics are taken over `group_size` consecutive images wherever they are computed; where
    a rank holds fewer, consecutive ranks take them together (`share_groups`). The
    running statistics take one momentum step per batch, towards the mean over all groups of the
    mean and of the unbiased variance; that is linear, so ranks that average their buffers after
    a step (`average_running_statistics`) hold what one process would.

    Args:
        num_features: Channels C.
        group_size: Images per group; None takes the whole batch of the process as one group, the
            ordinary batch normalisation.
        eps: Added to the variance.
        momentum: Weight of the new statistics, in [0, 1]; None averages all batches, as torch does.
    """

    running_mean: Tensor
    running_var: Tensor
    num_batches_tracked: Tensor

    def __init__(
        self,
        num_features: int,
        *,
        group_size: int | None = None,
        eps: float = 1e-5,
        momentum: float | None = 0.1,
    ) -> None:
        super().__init__(num_features, eps=eps, momentum=momentum)
        self.group_size = group_size
        self.ranks: dist.ProcessGroup | None = None  # that hold a group together
        self._held: Tensor | None = None

    def forward(self, input: Tensor) -> Tensor:
        """Normalises with group statistics in training, with running ones in evaluation.

        Raises:
            ValueError: The batch does not divide into groups.
        """
        if not self.training:
            return F.batch_norm(
                input, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps
            )
        if self.ranks is not None:
            return self._forward_shared(input, self.ranks)
        groups = self._num_groups(len(input))
        # On the CPU copies cost more than calls. On a GPU it is calls; compiled, nothing is copied.
        alone = input.device.type == "cpu" and not torch.compiler.is_compiling()
        normalise = normalise_one_by_one if alone else normalise_at_once
        output, means, variances = normalise(input, self.weight, self.bias, groups, eps=self.eps)
        self._update(means, variances)
        return output

    @torch.compiler.disable  # type: ignore[untyped-decorator]  # collectives are not compiled
    def _forward_shared(self, input: Tensor, ranks: dist.ProcessGroup) -> Tensor:
        """Normalises by the statistics of all images of some ranks, one group together."""
        output, mean, variance = SharedBatchNorm.apply(
            input, self.weight, self.bias, self.eps, ranks
        )
        count = input.numel() // self.num_features * dist.get_world_size(ranks)
        self._update(mean[None], variance[None] * (count / (count - 1)))
        return output

    def _num_groups(self, batch: int) -> int:
        if self.group_size is None:
            return 1
        if batch % self.group_size:
            raise ValueError(
                f"a batch of {batch} images per process does not divide into groups of "
                f"norm_batch_size={self.group_size}: use a batch size of {self.group_size} (or a "
                "multiple) per process, or another norm_batch_size"
            )
        return batch // self.group_size

    @torch.no_grad()
    def _update(self, means: Tensor, variances: Tensor) -> None:
        """Takes one momentum step towards the mean over groups of (G, C), now or when let go."""
        if self._held is not None:
            self._held[0] += means.sum(0)
            self._held[1] += variances.sum(0)
            self._held[2] += len(means)
            return
        self.num_batches_tracked += 1
        weight: Any = self.momentum
        if weight is None:  # set by averagers of weights, such as torch.optim.swa_utils.update_bn
            weight = self.num_batches_tracked.reciprocal()
        self.running_mean.lerp_(means.mean(0), weight)
        self.running_var.lerp_(variances.mean(0), weight)

    def hold(self) -> None:
        """Keeps the running statistics as they are until `let_go`."""
        # Sums over the groups of means and variances, and their number: one tensor of fixed shape,
        # for a list that grows would be compiled anew for each length.
        self._held = self.running_mean.new_zeros(3, self.num_features)

    def let_go(self, *, update: bool) -> None:
        """Ends `hold`, with one momentum step for all groups seen since or with none."""
        held, self._held = self._held, None
        if update and held is not None:
            mean, variance = held[:2] / held[2]
            self._update(mean[None], variance[None])

    def extra_repr(self) -> str:
        """Names the group size in the printed model."""
        return f"{super().extra_repr()}, group_size={self.group_size}"


def normalise_one_by_one(
    input: Tensor, weight: Tensor, bias: Tensor, groups: int, *, eps: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Normalises groups of consecutive images by their own statistics, in a call for each.

    Args:
        input: (B, C) or (B, C, H, W).
        weight: Scale (C,).
        bias: Shift (C,).
        groups: G, a divisor of B.
        eps: Added to the variance.

    Returns:
        The images normalised, the groups' means (G, C) and their unbiased variances (G, C).
    """
    means = weight.new_zeros(groups, len(weight))
    variances = weight.new_ones(groups, len(weight))
    # With momentum 1 these come back as a group's mean and unbiased variance.
    outputs = [
        F.batch_norm(part, mean, variance, weight, bias, training=True, momentum=1.0, eps=eps)
        for part, mean, variance in zip(input.chunk(groups), means, variances, strict=True)
    ]
    return torch.cat(outputs) if groups > 1 else outputs[0], means, variances


def normalise_at_once(
    input: Tensor, weight: Tensor, bias: Tensor, groups: int, *, eps: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Does the same in one call: a group's channels become channels of their own."""
    means = weight.new_zeros(groups * len(weight))
    variances = weight.new_ones(groups * len(weight))
    output = F.batch_norm(
        _fold(input, groups),
        means,
        variances,
        weight.repeat(groups),
        bias.repeat(groups),
        training=True,
        momentum=1.0,
        eps=eps,
    )
    return _unfold(output, groups), means.view(groups, -1), variances.view(groups, -1)


def _fold(images: Tensor, groups: int) -> Tensor:
    """Lays groups beside each other, (B, C, ...) as (B / G, G * C, ...), in the same layout."""
    if groups == 1:
        return images
    if not _is_channels_last(images):
        return images.unflatten(0, (groups, -1)).transpose(0, 1).flatten(1, 2)
    rows = images.permute(0, 2, 3, 1).unflatten(0, (groups, -1))  # (G, B / G, H, W, C)
    return rows.movedim(0, 3).flatten(3).permute(0, 3, 1, 2)


def _unfold(images: Tensor, groups: int) -> Tensor:
    """Undoes `_fold`."""
    if groups == 1:
        return images
    if not _is_channels_last(images):
        return images.unflatten(1, (groups, -1)).transpose(0, 1).flatten(0, 1)
    rows = images.permute(0, 2, 3, 1).unflatten(3, (groups, -1))  # (B / G, H, W, G, C)
    return rows.movedim(3, 0).flatten(0, 1).permute(0, 3, 1, 2)


def _is_channels_last(images: Tensor) -> bool:
    """Tells whether the channels of a pixel lie together, and not those of the whole map."""
    if images.ndim != 4 or images.is_contiguous():
        return False
    return images.is_contiguous(memory_format=torch.channels_last)


class GroupBatchNormAct(GroupBatchNorm):
    """The same followed by the activation that timm fuses into some of its layers."""

    drop: nn.Module
    act: nn.Module

    def forward(self, input: Tensor) -> Tensor:
        """Normalises and activates."""
        return self.act(self.drop(super().forward(input)))


def group_batch_norms(module: nn.Module, group_size: int | None) -> None:
    """Replaces every `BatchNorm2d` below `module` in place, keeping parameters and statistics."""
    for name, child in module.named_children():
        if isinstance(child, nn.BatchNorm2d):
            kind = GroupBatchNormAct if isinstance(child, BatchNormAct2d) else GroupBatchNorm
            norm = kind(
                child.num_features, group_size=group_size, eps=child.eps, momentum=child.momentum
            )
            if isinstance(norm, GroupBatchNormAct):
                norm.drop, norm.act = child.drop, child.act  # type: ignore[assignment]
            norm.load_state_dict(child.state_dict())
            setattr(module, name, norm)
        else:
            group_batch_norms(child, group_size)


def share_groups(module: nn.Module, ranks: dist.ProcessGroup | None) -> None:
    """Has the norms below `module` take their statistics over all images of some ranks.

    Args:
        module: Its norms' groups are larger than what a rank holds.
        ranks: Consecutive ranks that hold a group together; None where a rank holds whole groups.
    """
    for child in module.modules():
        if isinstance(child, GroupBatchNorm):
            child.ranks = ranks


def average_running_statistics(module: nn.Module) -> None:
    """Makes all ranks hold the running statistics of the whole batch; call it after each step."""
    if not is_distributed():
        return
    norms = [child for child in module.modules() if isinstance(child, GroupBatchNorm)]
    average_([buffer for norm in norms for buffer in (norm.running_mean, norm.running_var)])
