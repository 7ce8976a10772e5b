from __future__ import annotations

import torch

from pplr_lightning.networks.pooling import GeM


def test_between_the_average_and_the_maximum():
    feature_map = torch.rand(2, 5, 4, 3)

    def pool(gem):
        return gem.root(gem.power(feature_map).mean(dim=(2, 3)))

    assert torch.allclose(pool(GeM(1.0)), feature_map.mean(dim=(2, 3)))
    assert torch.allclose(pool(GeM(200.0)), feature_map.amax(dim=(2, 3)), rtol=0.02)
    assert (pool(GeM()) > feature_map.mean(dim=(2, 3))).all()


def test_gradients_of_nothing_are_finite():
    gem, feature_map = GeM(), torch.zeros(1, 2, 2, 2, requires_grad=True)
    gem.root(gem.power(feature_map).mean(dim=(2, 3))).sum().backward()
    assert feature_map.grad.isfinite().all()
    assert gem.p.grad.isfinite().all()
