from __future__ import annotations

import pytest
import torch

from pplr_lightning.data import EvalBatch
from pplr_lightning.evaluation.extraction import evaluating, extract_features, join_features
from pplr_lightning.networks import PartNetwork


@pytest.fixture
def network():
    return PartNetwork("resnet10t", weights=None, num_parts=2, norm_batch_size=2)


def batch(images):
    ids = torch.zeros(len(images), dtype=torch.long)
    return EvalBatch(images, ids, ids, ids, ids.bool())


def test_features_are_normalised_and_in_order(network):
    images = torch.randn(5, 3, 64, 32)
    features, parts = extract_features(network, [batch(images[:3]), batch(images[3:])])
    assert features.shape == (5, 512)
    assert parts.shape == (5, 512, 2)
    assert torch.allclose(features.norm(dim=1), torch.ones(5))
    assert torch.allclose(parts.norm(dim=1), torch.ones(5, 2))
    expected, _ = extract_features(network, [batch(images[4:])])
    assert torch.allclose(features[4:], expected, atol=1e-5)


def test_a_rank_without_images_gives_no_rows(network):
    features, parts = extract_features(network, [])
    assert features.shape == (0, 512)
    assert parts.shape == (0, 512, 2)


def test_a_network_without_parts():
    network = PartNetwork("resnet10t", weights=None, num_parts=0, norm_batch_size=2)
    features, parts = extract_features(network, [batch(torch.randn(5, 3, 64, 32))])
    assert features.shape == (5, 512)
    assert parts.shape == (5, 512, 0)
    assert extract_features(network, [])[1].shape == (0, 512, 0)


def test_the_network_is_left_as_it_was(network):
    network.train()
    network.backbone.bn1.eval()  # frozen by the user
    before = {name: value.clone() for name, value in network.state_dict().items() if "run" in name}
    extract_features(network, [batch(torch.randn(3, 3, 64, 32))])
    assert network.training
    assert not network.backbone.bn1.training
    assert all(torch.equal(network.state_dict()[name], value) for name, value in before.items())


def test_modes_come_back_after_an_error(network):
    def fail():
        with evaluating(network):
            assert not network.training
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert network.training


class TestJoinFeatures:
    @pytest.fixture
    def branches(self):
        """Two images with a global and two part features; the cosines are 0.6, 0 and 0.8."""
        features = torch.tensor([[1.0, 0.0], [0.6, 0.8]])
        first = torch.tensor([[0.0, 1.0], [1.0, 0.0]])
        second = torch.tensor([[0.0, 1.0], [0.6, 0.8]])
        return features, torch.stack([first, second], dim=2)

    @pytest.mark.parametrize(
        ("kind", "vector", "cosine"),
        [
            ("global", [0.6, 0.8], 0.6),
            ("parts", [1 / 2**0.5, 0, 0.6 / 2**0.5, 0.8 / 2**0.5], (0 + 0.8) / 2),
            (
                "both",
                [x / 3**0.5 for x in (0.6, 0.8, 1, 0, 0.6, 0.8)],
                (0.6 + 0 + 0.8) / 3,
            ),
        ],
    )
    def test_cosine_is_the_mean_over_the_branches(self, branches, kind, vector, cosine):
        first, second = join_features(*branches, kind=kind)
        assert second.tolist() == pytest.approx(vector)
        assert first.norm() == pytest.approx(1)
        assert (first @ second).item() == pytest.approx(cosine)

    def test_of_no_parts(self, branches):
        features, none = branches[0], torch.empty(2, 2, 0)
        for kind in ("global", "both"):
            assert torch.equal(join_features(features, none, kind=kind), features)
        with pytest.raises(ValueError, match="features 'parts': the network has no parts; choose"):
            join_features(features, none, kind="parts")

    def test_no_such_kind(self, branches):
        with pytest.raises(ValueError, match="kind='all': choose one of global, parts, both"):
            join_features(*branches, kind="all")
