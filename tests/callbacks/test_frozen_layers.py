from __future__ import annotations

import pytest
import torch

from pplr_lightning import PPLRModule
from pplr_lightning.callbacks import FrozenLayers
from pplr_lightning.networks import PartNetwork


class Trainer:
    current_epoch = 0


def module(**options):
    torch.manual_seed(0)
    options = {"image_size": (64, 32), "weights": None, "norm_batch_size": 2, **options}
    return PPLRModule(PartNetwork("test_resnet", num_parts=2, **options), max_clusters=8)


def changed(made, callback, epoch=0):
    """Names of the tensors of the backbone that a step in an epoch moves."""
    trainer = Trainer()
    trainer.current_epoch = epoch
    made.train()
    before = {n: v.clone() for n, v in made.network.backbone.state_dict().items()}
    optimizer = torch.optim.Adam(made.parameters(), lr=0.1, weight_decay=0.1)
    callback.on_train_batch_start(trainer, made, None, 0)
    output = made.network(torch.randn(4, 3, 64, 32))
    sum(values.square().mean() for values in output).backward()
    callback.on_before_optimizer_step(trainer, made, optimizer)
    optimizer.step()
    after = made.network.backbone.state_dict()
    return {n for n, value in before.items() if not torch.equal(value, after[n])}


def weights(made):
    """Names of what every step moves; a shift may have a gradient of zero."""
    return {n for n in made.network.backbone.state_dict() if n.endswith(("weight", "_var"))}


@pytest.mark.parametrize("options", [{}, {"chunk_size": 2}])
def test_weights_and_statistics_of_named_layers_stay(options):
    made = module(**options)
    moved = changed(made, FrozenLayers(["conv1", "bn1", "layer1"]))
    kept = {n for n in weights(made) if n.startswith(("conv1", "bn1", "layer1"))}
    assert not any(n.startswith(("conv1", "bn1", "layer1")) for n in moved)
    assert weights(made) - kept <= moved
    assert all(v.isfinite().all() for v in made.network.backbone.state_dict().values())


def test_the_whole_backbone_until_an_epoch():
    made, callback = module(), FrozenLayers(epochs=2)
    assert changed(made, callback, epoch=1) == set()
    assert not made.network.backbone.bn1.training
    assert weights(made) <= changed(made, callback, epoch=2)


def test_a_layer_that_is_not_there():
    callback = FrozenLayers(["conv1", "blocks.0."])
    message = r"FrozenLayers.layers: the backbone has no 'blocks.0.' but conv1, bn1, layer1, "
    with pytest.raises(ValueError, match=message):
        callback.setup(Trainer(), module(), "fit")
