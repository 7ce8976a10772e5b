from __future__ import annotations

import pytest
import torch
from sklearn.metrics import adjusted_rand_score

from pplr_lightning.data.pseudo_labels import PseudoLabels
from pplr_lightning.evaluation.label_quality import label_quality, label_statistics, rand_index


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


class TestLabelStatistics:
    classes = torch.tensor([0, 0, 1, -1])
    agreement = torch.tensor([[0.0, 1.0], [0.2, 0.8], [0.4, 0.6], [0.6, 0.4]])
    labels = PseudoLabels(classes, {"agreement": agreement})

    def test_by_hand(self):
        found = label_statistics(self.labels, torch.full((4,), -1))
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
        found = label_statistics(PseudoLabels(self.classes, columns), torch.full((4,), -1))
        assert found == {"clusters": 2, "outliers": 0.25, "largest": 0.5, "singles": 0.25}

    def test_without_a_class_of_one_image(self):
        found = label_statistics(PseudoLabels(torch.tensor([0, 0, -1])), torch.full((3,), -1))
        assert "singles" not in found

    def test_with_identities(self):
        found = label_statistics(self.labels, torch.tensor([3, 3, 4, 4]))
        assert (found["ari"], found["precision"], found["recall"]) == (1, 1, 1)
        assert "ari" not in label_statistics(self.labels, torch.tensor([3, 3, 4, -1]))
