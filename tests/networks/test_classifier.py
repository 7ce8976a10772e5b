from __future__ import annotations

import pytest
import torch

from pplr_lightning.networks import ClusterClassifier


def test_reset_overwrites_in_place_and_counts():
    classifier = ClusterClassifier(4, 10)
    weight, before = classifier.weight, classifier.weight.detach().clone()
    centroids = torch.randn(3, 4)
    classifier.reset(centroids)
    assert classifier.weight is weight  # the optimiser's parameter
    assert torch.equal(weight[:3], centroids)
    assert torch.equal(weight[3:], before[3:])
    features = torch.randn(2, 4)
    assert torch.allclose(classifier(features), features @ centroids.T)


def test_number_of_clusters_is_saved():
    classifier = ClusterClassifier(4, 10)
    classifier.reset(torch.randn(3, 4))
    other = ClusterClassifier(4, 10)
    other.load_state_dict(classifier.state_dict())
    assert other(torch.randn(2, 4)).shape == (2, 3)


def test_more_centroids_than_rows():
    with pytest.raises(ValueError, match=r"11 clusters, .* max_clusters=10"):
        ClusterClassifier(4, 10).reset(torch.randn(11, 4))
