from __future__ import annotations

import pytest
import torch

from pplr_lightning.networks import GroupBatchNorm, PartNetwork


def make(chunk_size):
    return PartNetwork("resnet10t", weights=None, norm_batch_size=4, chunk_size=chunk_size)


def trained(images, chunk_size):
    """Everything that one step leaves behind, and how often the backbone ran."""
    torch.manual_seed(0)
    network = make(chunk_size).double()
    passes = []
    network.backbone.register_forward_hook(lambda _, inputs, output: passes.append(len(output)))
    output = network(images)
    sum(values.square().mean() for values in output).backward()
    gradients = [p.grad for p in network.parameters() if p.requires_grad]
    norms = [m for m in network.modules() if isinstance(m, GroupBatchNorm)]
    statistics = [s for n in norms for s in (n.running_mean, n.running_var)]
    counts = {n.num_batches_tracked.item() for n in norms}
    return [*output, *gradients, *statistics], counts, passes


def test_chunks_give_what_the_whole_batch_gives():
    images = torch.randn(20, 3, 64, 32, dtype=torch.float64)
    whole, counts, passes = trained(images, None)
    assert (counts, passes) == ({1}, [20])
    chunked, counts, passes = trained(images, 8)
    assert (counts, passes[:3]) == ({1}, [8, 8, 4])
    assert sorted(passes[3:]) == [4, 8, 8]  # again in the backward pass
    for a, b in zip(chunked, whole, strict=True):
        assert torch.allclose(a, b, rtol=1e-9, atol=1e-12)


def test_only_the_activations_of_a_chunk_are_held():
    images = torch.randn(16, 3, 64, 32)

    def held(chunk_size):
        network = make(chunk_size)
        stored = []
        with torch.autograd.graph.saved_tensors_hooks(
            lambda tensor: stored.append(tensor.numel()) or tensor, lambda tensor: tensor
        ):
            network(images)
        return sum(stored)

    assert held(4) < held(None) / 10


def test_evaluation_takes_no_chunks():
    network = make(chunk_size=4).eval()
    passes = []
    network.backbone.register_forward_hook(lambda _, inputs, output: passes.append(len(output)))
    network(torch.randn(10, 3, 64, 32))
    assert passes == [10]


@pytest.mark.parametrize(("chunk_size", "norm_batch_size"), [(6, 4), (0, 4), (4, None)])
def test_a_chunk_holds_whole_groups(chunk_size, norm_batch_size):
    with pytest.raises(ValueError, match=rf"chunk_size={chunk_size}: .* norm_batch_size="):
        PartNetwork("resnet10t", norm_batch_size=norm_batch_size, chunk_size=chunk_size)
