"""Batch normalisation of a group of images that several ranks hold together."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor


class SharedBatchNorm(torch.autograd.Function):
    """Normalises by the statistics of the images of some ranks, with gradients through them.

    It sums in float64, as torch's own kernel does on the CPU: both then round alike.
    """

    @staticmethod
    def forward(
        ctx: Any, input: Tensor, weight: Tensor, bias: Tensor, eps: float, ranks: dist.ProcessGroup
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Normalises the images of this rank.

        Args:
            ctx: What `backward` needs.
            input: Images, (B, C, ...), of the same shape on each of the ranks.
            weight: Scale (C,).
            bias: Shift (C,).
            eps: Added to the variance.
            ranks: Those that hold the group; all must call it, forwards and backwards.

        Returns:
            The images normalised, the group's mean (C,) and its biased variance (C,).
        """
        dims = [0, *range(2, input.ndim)]
        own = torch.stack(torch.var_mean(input.double(), dims, correction=0))  # (2, C)
        every = own.new_empty(dist.get_world_size(ranks) * 2, own.shape[1])
        dist.all_gather_into_tensor(every, own, group=ranks)
        variances, means = every.unflatten(0, (-1, 2)).unbind(1)  # of equal shares, (R, C)
        mean = means.mean(0)
        variance = variances.mean(0) + means.var(0, correction=0)
        ctx.save_for_backward(input, weight, mean, (variance + eps).rsqrt())
        ctx.ranks = ranks
        mean, variance = mean.to(weight.dtype), variance.to(weight.dtype)
        output = F.batch_norm(input, mean, variance, weight, bias, eps=eps)
        ctx.mark_non_differentiable(mean, variance)
        return output, mean, variance

    @staticmethod
    def backward(ctx: Any, grad: Tensor, *_: Tensor) -> tuple[Tensor | None, ...]:
        """Gives the gradients of images, weight and bias."""
        input, weight, mean, scale = ctx.saved_tensors
        dims = [0, *range(2, input.ndim)]
        shape = (1, -1, *[1] * (input.ndim - 2))
        centred = input.double() - mean.view(shape)
        own = torch.stack([grad.double().sum(dims), (grad * centred).sum(dims) * scale])
        total = own.clone()
        dist.all_reduce(total, group=ctx.ranks)
        count = input.numel() // len(mean) * dist.get_world_size(ctx.ranks)
        grad_bias, grad_weight = (total / count).unbind()
        grad_input = grad - grad_bias.view(shape) - centred * (scale * grad_weight).view(shape)
        grad_input = grad_input * (scale * weight).view(shape)
        own = own.to(weight.dtype)
        return grad_input.to(input.dtype), own[1], own[0], None, None


def ranks_per_group(batch_size: int, norm_batch_size: int | None, world_size: int) -> int:
    """Tells how many processes hold a group of batch statistics together; 1 if each holds it whole.

    Args:
        batch_size: Images of all processes.
        norm_batch_size: Images of a group; None makes a process's images one group.
        world_size: Processes.

    Raises:
        ValueError: Groups and processes do not divide.
    """
    share = batch_size // world_size
    if norm_batch_size is None or share % norm_batch_size == 0:
        return 1
    ranks, rest = divmod(norm_batch_size, share)
    if rest == 0 and world_size % ranks == 0:
        return ranks
    allowed = [
        size
        for size in range(2, batch_size + 1)
        if batch_size % size == 0 and (share % size == 0 or size % share == 0)
    ]
    raise ValueError(
        f"batch_size={batch_size} on {world_size} process{'es' if world_size > 1 else ''} does not "
        f"divide into groups of norm_batch_size={norm_batch_size} images: use a norm_batch_size of "
        f"{', '.join(map(str, allowed))}, or another batch_size or number of processes"
    )
