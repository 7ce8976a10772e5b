from __future__ import annotations

import pytest
import torch
import torch.nn.functional as nnf
from sklearn.metrics import average_precision_score

from pplr_lightning.functional import retrieval_metrics
from pplr_lightning.metrics import ReIDRetrieval, label_quality


@pytest.fixture
def images():
    torch.manual_seed(0)
    persons = torch.randint(0, 5, (60,))
    return (
        nnf.normalize(torch.randn(60, 8) + nnf.one_hot(persons, 8), dim=1),
        persons,
        torch.randint(0, 3, (60,)),
        torch.arange(60) < 15,
        torch.arange(60),
    )


def evaluate(images, *orders):
    metric = ReIDRetrieval()
    for order in orders:
        metric.update(*(value[order] for value in images))
    return metric.compute()


def test_equals_the_function(images):
    features, persons, cameras, query, _ = images
    distance = 2 - 2 * features[query] @ features[~query].T
    expected = retrieval_metrics(
        distance, persons[query], persons[~query], cameras[query], cameras[~query]
    )
    assert evaluate(images, torch.arange(60)) == pytest.approx(expected, abs=1e-7)


def test_map_is_scikit_learns(images):
    features, persons, cameras, query, _ = images
    similarity = features[query] @ features[~query].T
    values = []
    for q in range(15):
        keep = ~((persons[~query] == persons[q]) & (cameras[~query] == cameras[q]))
        relevant = persons[~query][keep] == persons[q]
        values.append(average_precision_score(relevant, similarity[q][keep]))
    expected = sum(values) / len(values)
    assert evaluate(images, torch.arange(60))["mAP"] == pytest.approx(expected, abs=1e-6)


def test_order_batches_and_padding_change_nothing(images):
    expected = evaluate(images, torch.arange(60))
    shuffled = torch.randperm(60, generator=torch.Generator().manual_seed(1))
    padded = torch.cat([shuffled, shuffled[:7]])  # a sampler that fills up to equal shares
    assert evaluate(images, *padded.split(16)) == expected


def test_reset_forgets(images):
    metric = ReIDRetrieval()
    metric.update(*(value.flip(0) for value in images))
    metric.reset()
    metric.update(*images)
    assert metric.compute() == evaluate(images, torch.arange(60))


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
