from __future__ import annotations

import math

import pytest
import torch

from pplr_lightning import functional as F
from pplr_lightning.evaluation.label_quality import rand_index
from pplr_lightning.labelers import DBSCAN, Space, candidates, label_grid
from pplr_lightning.labelers.grid import (
    GridLabels,
    Setting,
    check_grid,
    choose,
    least_doubtful,
)

SMALL = {"k1": [4, 8], "eps": [0.4, 0.6], "min_samples": [2, 4]}


def people(count: int = 8, images: int = 12, noise: float = 0.15):
    """Features of people, and whose they are; half of each person's images from each camera."""
    generator = torch.Generator().manual_seed(0)
    persons = torch.arange(count).repeat_interleave(images)
    features = torch.eye(count, 16)[persons]
    features = features + noise * torch.randn(features.shape, generator=generator)
    return torch.nn.functional.normalize(features, dim=1), persons


def of_values(k1: int = 8, doubts=(), **values) -> GridLabels:
    return GridLabels(Setting(k1, 1, 0.5, 4), torch.zeros(1).long(), values, list(doubts))


class TestGrid:
    @pytest.fixture(scope="class")
    def grid(self):
        features, persons = people()
        cameras = torch.arange(len(persons)) % 2
        return label_grid(Space.of(features, cameras=cameras, persons=persons), **SMALL)

    def test_labels_are_those_of_the_labeler(self, grid):
        features, _ = people()
        assert [labels.setting for labels in grid] == [
            Setting(k1, 1, eps, least) for k1 in (4, 8) for eps in (0.4, 0.6) for least in (2, 4)
        ]
        for labels in grid:
            expected = DBSCAN(**labels.setting._asdict()).label(Space.of(features))
            assert torch.equal(labels.classes, expected)

    def test_searches_neighbours_once(self, monkeypatch):
        calls = []
        search = Space.search
        monkeypatch.setattr(Space, "search", lambda *args: calls.append(1) or search(*args))
        label_grid(Space.of(people()[0]), **SMALL)
        assert len(calls) == 1

    def test_values(self, grid):
        features, persons = people()
        for labels in grid:
            values, sizes = labels.values, labels.classes[labels.classes >= 0].bincount()
            assert values["clusters"] == len(sizes)
            assert values["outliers"] == pytest.approx(float((labels.classes < 0).float().mean()))
            assert values["largest"] == int(sizes.max()) / 96
            assert values["median_size"] == sizes.double().quantile(0.5)
            assert values["images_per_cluster"] == pytest.approx(float(sizes.double().mean()))
            score = F.label_score(features, labels.classes)
            assert values["score"] == pytest.approx(score, abs=1e-6)
            assert values["ari"] == rand_index(labels.classes, persons)
            spans = [
                len((torch.arange(96) % 2)[labels.classes == cluster].unique()) > 1
                for cluster in range(len(sizes))
            ]
            across = int(sizes[torch.tensor(spans)].sum()) / int(sizes.sum())
            assert values["across_cameras"] == pytest.approx(across)
            cameras, one = torch.arange(96) % 2, labels.classes
            pairs = (persons[:, None] == persons) & (cameras[:, None] != cameras)
            pairs &= (one[:, None] >= 0) & (one >= 0)
            joined = int((pairs & (one[:, None] == one)).sum()) / int(pairs.sum())
            assert values["recall_across"] == pytest.approx(joined)
        assert max(labels.values["ari"] for labels in grid) > 0.7

    def test_persistence_is_of_the_settings_one_step_away(self, grid):
        # of k1, eps, min_samples in two steps each, the first has the 2nd, 3rd and 5th beside it
        near = [rand_index(grid[0].classes, grid[place].classes) for place in (1, 2, 4)]
        assert grid[0].values["persistence"] == pytest.approx(sum(near) / 3)
        (alone,) = label_grid(Space.of(people()[0]), k1=[8], eps=[0.5], min_samples=[2])
        assert math.isnan(alone.values["persistence"])

    def test_what_is_not_known_is_not_told(self):
        features, persons = people()
        some = persons.clone()
        some[0] = -1
        one_camera = torch.zeros_like(persons)
        grid = label_grid(Space.of(features, cameras=one_camera, persons=some), **SMALL)
        assert not {"ari", "precision", "across_cameras"} & set(grid[0].values)

    def test_k2_of_ones_own_and_k1_beyond_the_images(self):
        grid = label_grid(Space.of(people()[0]), k1=[4, 8, 99], k2=[2, 6], eps=[0.5])
        assert {labels.setting[:2] for labels in grid} == {(4, 2), (8, 2), (8, 6)}

    def test_no_cluster(self):
        grid = label_grid(Space.of(torch.eye(16)), k1=[4], eps=[0.1], min_samples=[3])
        assert grid[0].values["clusters"] == 0
        assert grid[0].doubts == ["fewer than two clusters"]
        assert candidates(grid) == []


class TestDoubts:
    def grid(self, count, images, *, per_person=None, cameras=None):
        features, persons = people(count, images, noise=0)
        space = Space.of(features, cameras=None if cameras is None else cameras(persons))
        (labels,) = label_grid(
            space, k1=[images], eps=[0.5], min_samples=[2], images_per_person=per_person
        )
        return labels.doubts

    def test_of_clear_people_there_are_none(self):
        assert self.grid(8, 12, per_person=12) == []
        assert self.grid(8, 12, cameras=lambda persons: torch.arange(len(persons)) % 2) == []

    def test_a_cluster_that_swallows_the_set(self):
        assert self.grid(3, 12) == ["one cluster holds 33% of the images"]

    def test_clusters_of_copies(self):
        assert self.grid(8, 4) == ["half of its clusters have 4 images or fewer"]
        assert self.grid(8, 4, per_person=5) == []

    def test_far_from_what_is_expected(self):
        assert self.grid(8, 12, per_person=60) == ["12.0 images per cluster for 60 per person"]
        assert self.grid(8, 12, per_person=1) == [
            "12.0 images per cluster for 1 per person",
            "12 images in a cluster for 1 per person",
        ]

    def test_clusters_of_cameras(self):
        (doubt,) = self.grid(8, 12, cameras=lambda persons: persons % 2)
        assert doubt == "0% of the clustered images in clusters of two cameras"


class TestCandidates:
    def test_the_highest_score_of_each_k1_that_is_not_in_doubt(self):
        low, high = of_values(8, score=1.0), of_values(8, score=2.0)
        other, doubted = of_values(16, score=1.5), of_values(24, ["why"], score=3.0)
        assert candidates([low, other, doubted, high]) == [high, other]
        assert candidates([low, other, doubted, high], most=1) == [high]

    def test_where_all_are_in_doubt(self):
        """Few doubts count before the score, and without clusters nothing does."""
        one, two = (
            of_values(8, ["a"], score=1.0, clusters=9),
            of_values(8, ["a"], score=2.0, clusters=9),
        )
        many, none = (
            of_values(8, ["a", "b"], score=3.0, clusters=9),
            of_values(8, ["c"], score=0.0, clusters=0),
        )
        grid = [none, many, one, two]
        assert least_doubtful(grid, most=4) == [two, one, many, none]
        assert choose(grid) is two
        sound = of_values(6, score=0.5, clusters=9)
        assert choose([*grid, sound]) is sound


class TestBadInput:
    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"k1": [0]}, "labeler.k1 must be at least 1"),
            ({"eps": [1.5]}, r"labeler.eps=1.5: .* \(0, 1\]"),
            ({"min_samples": [0]}, "labeler.min_samples must be at least 1"),
            ({"k2": [40]}, "no setting is left"),
            ({"eps": []}, "no setting is left"),
            ({"images_per_person": 0.0}, "images_per_person=0.0: "),
            ({"images_per_person": math.nan}, "images_per_person=nan: "),
        ],
    )
    def test_options(self, options, message):
        with pytest.raises(ValueError, match=message):
            check_grid(**{"k1": [8], "k2": None, "eps": [0.5], "min_samples": [2]} | options)

    def test_too_few_images(self):
        with pytest.raises(ValueError, match="k1=6 for 3 images"):
            label_grid(Space.of(torch.eye(3)))


def test_an_empty_list_is_no_grid():
    whole = {"k1": [8], "k2": [2], "eps": [0.5], "min_samples": [2]}
    assert len(check_grid(**whole)) == 1
    for name in whole:
        with pytest.raises(ValueError, match="no setting is left: give a k1"):
            check_grid(**{**whole, name: []})
