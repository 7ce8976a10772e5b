"""A batch in chunks, for a GPU that cannot hold the activations of all of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import TypeVar

from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from pplr_lightning.networks.batch_norm import GroupBatchNorm

Output = TypeVar("Output", bound=tuple[Tensor, ...])


def forward_in_chunks(
    model: nn.Module, forward: Callable[[Tensor], Output], images: Tensor, size: int
) -> list[Output]:
    """Computes `size` images at a time and keeps of each chunk the outputs alone.

    Its activations are computed again in the backward pass. As long as chunks hold whole groups of
    batch statistics, outputs, gradients and running statistics are those of the whole batch
    (gradient caching; Gao et al., RepL4NLP 2021), at the price of a second forward pass.

    Args:
        model: Holds the norms.
        forward: Computes the outputs of a chunk (size, ...).
        images: The batch (B, ...).
        size: Images of a chunk; the last may be smaller.

    Returns:
        The outputs of the chunks, in their order.
    """

    def contexts() -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
        return nullcontext(), _held_statistics(model, update=False)  # forwards, and again

    with _held_statistics(model, update=True):
        return [
            checkpoint(forward, chunk, use_reentrant=False, context_fn=contexts)
            for chunk in images.split(size)
        ]


@contextmanager
def _held_statistics(model: nn.Module, *, update: bool) -> Iterator[None]:
    """Has the norms below `model` take one step at the end for all chunks, or none."""
    # Those that are to keep their statistics (frozen layers) stand in evaluation and see none.
    norms = [m for m in model.modules() if isinstance(m, GroupBatchNorm) and m.training]
    for norm in norms:
        norm.hold()
    try:
        yield
    finally:
        for norm in norms:
            norm.let_go(update=update)
