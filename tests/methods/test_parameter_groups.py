from __future__ import annotations

import pytest
import torch

from pplr_lightning import PPLRModule
from pplr_lightning.methods.parameter_groups import layer_groups
from pplr_lightning.networks import PartNetwork


def module(backbone="test_vit", **options):
    options = {"image_size": (64, 32), "weights": None, "last_stride": 2, **options}
    return PPLRModule(PartNetwork(backbone, num_parts=2, **options), max_clusters=8)


def share_of(groups):
    return {id(p): group["lr_scale"] for group in groups for p in group["params"]}


def test_the_lower_a_layer_the_smaller_its_rate():
    made = module()
    backbone = made.network.backbone
    shares = share_of(layer_groups(made.learning_parameters(), [backbone], 0.5))
    assert shares[id(made.classifier.weight)] == 1
    assert shares[id(made.network.neck.weight)] == 1
    for block in range(6):
        assert shares[id(backbone.blocks[block].attn.qkv.weight)] == 0.5 ** (6 - block)
    assert shares[id(backbone.cls_token)] == shares[id(backbone.pos_embed)] == 0.5**7
    learning = [p for p in made.parameters() if p.requires_grad]
    assert set(shares) == {id(p) for p in learning}


@pytest.mark.parametrize(("backbone", "groups"), [("resnet10t", 6), ("osnet_x0_25", 11)])
def test_convolutional_networks_have_layers_too(backbone, groups):
    made = module(backbone)
    assert len(layer_groups(made.learning_parameters(), [made.network.backbone], 0.9)) == groups


def test_the_optimiser_has_them_and_the_schedule_keeps_them():
    made = module()
    made.layer_decay = 0.5
    given = made.configure_optimizers()
    optimizer, scheduler = given["optimizer"], given["lr_scheduler"]
    expected = [3.5e-4 * 0.5 ** (7 - layer) for layer in range(8)]
    assert [group["lr"] for group in optimizer.param_groups] == pytest.approx(expected)
    for _ in range(20):
        optimizer.step()
        scheduler.step()
    tenth = [rate / 10 for rate in expected]
    assert [group["lr"] for group in optimizer.param_groups] == pytest.approx(tenth)


def test_a_share_of_the_methods_own_stays():
    """As that of the backbone in IICS and in the supervised part models."""
    made = module()
    backbone = list(made.network.backbone.parameters())
    own = [{"params": backbone, "lr_scale": 0.1}, {"params": [made.classifier.weight]}]
    shares = share_of(layer_groups(own, [made.network.backbone], 0.5))
    assert shares[id(made.classifier.weight)] == 1
    assert shares[id(made.network.backbone.cls_token)] == pytest.approx(0.1 * 0.5**7)


def test_refused():
    made = module()
    with pytest.raises(ValueError, match=r"layer_decay=1.5: must lie in \(0, 1\]"):
        layer_groups(made.learning_parameters(), [made.network.backbone], 1.5)
    with pytest.raises(ValueError, match=r"layer_decay=0.5: a Linear as backbone does not say"):
        layer_groups(made.learning_parameters(), [torch.nn.Linear(2, 2)], 0.5)
