from __future__ import annotations

import math

import pytest
import torch
from sklearn.metrics import silhouette_samples

from pplr_lightning.functional import label_score, simplified_silhouette


def people(*, noise: float, images: int = 10, count: int = 6, seed: int = 0):
    """Features of `count` people, images of one behind each other, and whose they are."""
    generator = torch.Generator().manual_seed(seed)
    persons = torch.arange(count).repeat_interleave(images)
    features = torch.eye(count, 16)[persons]
    features = features + noise * torch.randn(features.shape, generator=generator)
    return torch.nn.functional.normalize(features, dim=1), persons


class TestSilhouette:
    def test_hand_computed(self):
        angle = torch.deg2rad(torch.tensor([0.0, 60.0, 180.0, 180.0, 90.0]))
        features = torch.stack([angle.cos(), angle.sin()], dim=1)
        found = simplified_silhouette(features, torch.tensor([0, 0, 1, 1, -1]))
        # Image 0: half away from the other of its cluster, 2 from the next. Image 1: half, 1.5.
        assert found.tolist() == pytest.approx([0.75, 2 / 3, 1, 1, 0], abs=1e-5)

    def test_follows_the_silhouette_with_images_for_means(self):
        features, persons = people(noise=0.5, images=30)
        expected = silhouette_samples(features.numpy(), persons.numpy(), metric="cosine")
        found = simplified_silhouette(features, persons)
        assert torch.corrcoef(torch.stack([found, torch.from_numpy(expected)]))[0, 1] > 0.95

    def test_alone_in_a_cluster(self):
        features, persons = people(noise=0.1)
        persons[0] = 6
        assert simplified_silhouette(features, persons)[0] <= 0

    def test_equal_images(self):
        features = torch.ones(4, 1)
        assert simplified_silhouette(features, torch.tensor([0, 0, 1, 1])).abs().max() < 1e-3


class TestScore:
    def test_of_clear_clusters_is_the_entropy_of_their_sizes(self):
        features, persons = people(noise=0)
        assert label_score(features, persons) == pytest.approx(math.log(6), abs=1e-4)
        persons[persons == 5] = -1
        assert label_score(features, persons) == pytest.approx(5 / 6 * math.log(6), abs=1e-4)

    def test_likes_the_truth_best(self):
        features, persons = people(noise=0.35)
        truth = label_score(features, persons)
        merged, split, few = persons // 2, persons.clone(), persons.clone()
        split[::2] += 6
        few[torch.arange(60) % 10 > 2] = -1
        mixed = persons[torch.randperm(60, generator=torch.Generator().manual_seed(0))]
        for worse in (merged, split, few, mixed, torch.zeros_like(persons)):
            assert label_score(features, worse) < 0.9 * truth

    @pytest.mark.parametrize("classes", [torch.zeros(60).long(), torch.full((60,), -1)])
    def test_fewer_than_two_clusters(self, classes):
        features, _ = people(noise=0.3)
        assert label_score(features, classes) == 0
        assert not simplified_silhouette(features, classes).any()

    def test_of_a_sample(self):
        features, persons = people(noise=0.5, images=300)
        found = label_score(features, persons, most=360)
        assert found == pytest.approx(label_score(features, persons), rel=0.05)
        parts = simplified_silhouette(features, persons).clamp(min=0)[::5].double()
        assert found == pytest.approx(float(parts.mean()) * math.log(6), abs=1e-6)

    def test_does_not_depend_on_blocks(self, monkeypatch):
        features, persons = people(noise=0.5)
        expected = label_score(features, persons)
        monkeypatch.setattr("pplr_lightning.functional.silhouette.BLOCK", 7)
        assert label_score(features, persons) == pytest.approx(expected, abs=1e-9)

    @pytest.mark.parametrize(
        ("features", "labels", "message"),
        [
            (torch.ones(4, 3), torch.zeros(4).long(), "L2-normalised"),
            (torch.eye(4), torch.zeros(3).long(), r"labels must have shape \(4,\), got \(3,\)"),
        ],
    )
    def test_bad_input(self, features, labels, message):
        for score in (label_score, simplified_silhouette):
            with pytest.raises(ValueError, match=message):
                score(features, labels)
