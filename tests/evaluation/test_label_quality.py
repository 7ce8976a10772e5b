from __future__ import annotations

import pytest
import torch
from sklearn.metrics import adjusted_rand_score

from pplr_lightning.data.pseudo_labels import PseudoLabels
from pplr_lightning.evaluation.label_quality import (
    label_changes,
    label_quality,
    label_statistics,
    rand_index,
    share_across_cameras,
)


class TestLabelQuality:
    def test_by_hand(self):
        labels = torch.tensor([0, 0, 0, 1, 1, -1])
        persons = torch.tensor([5, 5, 6, 6, 6, 5])
        quality = label_quality(labels, persons)
        # pairs in one cluster: 3 + 1, of which of one person 1 + 1; of one person: 1 + 3
        assert quality.precision == pytest.approx(2 / 4)
        assert quality.recall == pytest.approx(2 / 4)

    def test_perfect(self):
        labels = torch.tensor([3, 3, 1, 1, -1])
        assert label_quality(labels, torch.tensor([7, 7, 8, 8, 7])) == (1.0, 1.0, 1.0)

    def test_outliers_only(self):
        assert label_quality(torch.tensor([-1, -1]), torch.tensor([1, 2])) == (0.0, 0.0, 0.0)


class TestRandIndex:
    def test_an_outlier_is_a_cluster_of_its_own(self):
        truth = torch.tensor([0, 0, 0, 1, 1, 1])
        alone = torch.tensor([0, 0, 2, 1, 1, 3])
        assert rand_index(torch.tensor([0, 0, -1, 1, 1, -1]), truth) == pytest.approx(
            adjusted_rand_score(truth, alone)
        )
        assert rand_index(truth, truth) == 1
        assert rand_index(torch.full((6,), -1), truth) == 0


class TestLabelChanges:
    def test_labels_that_stay_are_kept_under_any_number(self):
        before = torch.tensor([0, 0, 1, 1, -1, 2, 2])
        assert label_changes(before, torch.tensor([2, 2, 0, 0, 1, 1, 1])) == {
            "kept": 1, "merged": 0, "split": 0,
        }  # fmt: skip

    def test_against_a_plain_loop(self):
        draw = torch.Generator().manual_seed(0)
        for _ in range(20):
            before, after = torch.randint(-1, 6, (2, 40), generator=draw).sort(dim=1)[0]
            after = torch.where(torch.rand(40, generator=draw) < 0.3, -1, after.roll(2))
            found = {"kept": 0, "merged": 0, "split": 0}
            clusters = before[before >= 0].unique()
            for old in clusters:
                mine, ending = before == old, "split"
                for new in after[after >= 0].unique():
                    theirs = after == new
                    both = int((mine & theirs).sum())
                    if both > mine.sum() / 2:
                        ending = "kept" if both > theirs.sum() / 2 else "merged"
                found[ending] += 1
            before = torch.unique(before, return_inverse=True)[1] - int(before.min() < 0)
            shares = {name: count / len(clusters) for name, count in found.items()}
            assert label_changes(before, after) == pytest.approx(shares)

    def test_of_no_clusters(self):
        assert label_changes(torch.tensor([-1, -1]), torch.tensor([0, 0])) == {}
        changes = label_changes(torch.tensor([0, 0]), torch.tensor([-1, -1]))
        assert changes == {"kept": 0, "merged": 0, "split": 1}


class TestShareAcrossCameras:
    def test_by_hand(self):
        labels = torch.tensor([0, 0, 0, 1, 1, -1])
        assert share_across_cameras(labels, torch.tensor([1, 1, 2, 3, 3, 4])) == 3 / 5
        # an image of an unknown camera says nothing of its cluster
        assert share_across_cameras(labels, torch.tensor([1, 1, -1, 3, 4, 4])) == 2 / 5

    @pytest.mark.parametrize("cameras", [[1, 1, 1], [-1, -1, -1], [1, -1, 1]])
    def test_says_nothing_of_one_camera(self, cameras):
        assert share_across_cameras(torch.tensor([0, 0, 1]), torch.tensor(cameras)) is None

    def test_says_nothing_without_clusters(self):
        assert share_across_cameras(torch.tensor([-1, -1]), torch.tensor([1, 2])) is None


class TestLabelStatistics:
    unknown = torch.full((4,), -1)
    classes = torch.tensor([0, 0, 1, -1])
    agreement = torch.tensor([[0.0, 1.0], [0.2, 0.8], [0.4, 0.6], [0.6, 0.4]])
    labels = PseudoLabels(classes, {"agreement": agreement})

    def test_by_hand(self):
        found = label_statistics(self.labels, self.unknown, self.unknown)
        assert found == pytest.approx(
            {
                "clusters": 2,
                "outliers": 0.25,
                "largest": 0.5,
                "singles": 0.25,
                "agreement_mean": 0.5,
                "agreement_part1": 0.3,
                "agreement_part2": 0.7,
            }
        )

    @pytest.mark.parametrize("columns", [{}, {"agreement": torch.empty(4, 0)}])
    def test_of_a_method_without_agreement(self, columns):
        found = label_statistics(PseudoLabels(self.classes, columns), self.unknown, self.unknown)
        assert found == {"clusters": 2, "outliers": 0.25, "largest": 0.5, "singles": 0.25}

    def test_without_a_class_of_one_image(self):
        found = label_statistics(PseudoLabels(torch.tensor([0, 0, -1])), *torch.full((2, 3), -1))
        assert "singles" not in found

    def test_with_identities(self):
        found = label_statistics(self.labels, torch.tensor([3, 3, 4, 4]), self.unknown)
        assert (found["ari"], found["precision"], found["recall"]) == (1, 1, 1)
        assert "ari" not in label_statistics(self.labels, torch.tensor([3, 3, 4, -1]), self.unknown)

    def test_with_cameras_and_the_epoch_before(self):
        before = torch.tensor([0, 0, 0, -1])
        cameras = torch.tensor([1, 2, 1, 1])
        found = label_statistics(self.labels, self.unknown, cameras, before)
        assert found["across_cameras"] == 2 / 3
        assert (found["kept"], found["merged"], found["split"]) == (1, 0, 0)
