from __future__ import annotations

import torch
import torch.nn.functional as nnf

from pplr_lightning.evaluation.rankings import example_rankings


def features(count, seed):
    generator = torch.Generator().manual_seed(seed)
    return nnf.normalize(torch.randn(count, 8, generator=generator), dim=1)


def rankings(precision, counted=None, **options):
    precision = torch.tensor(precision)
    counted = torch.ones(len(precision), dtype=torch.bool) if counted is None else counted
    queries, gallery = features(len(precision), 0), features(30, 1)
    found = example_rankings(queries, gallery, precision, counted, **options)
    for one in found:
        expected = (gallery @ queries[one.query]).argsort(descending=True)
        assert one.gallery == expected[: len(one.gallery)].tolist()
        assert one.average_precision == precision[one.query].item()
    return [(one.name, one.query) for one in found], [len(one.gallery) for one in found]


def test_best_median_and_worst():
    names, lengths = rankings([0.3, 0.9, 0.1, 0.5, 0.4])
    assert names == [("best", 1), ("median", 4), ("worst", 2)]
    assert lengths == [10, 10, 10]


def test_the_first_of_equals():
    assert rankings([0.5, 1.0, 1.0, 0.2])[0][0] == ("best", 1)


def test_queries_that_are_not_counted_are_left_out():
    counted = torch.tensor([True, False, False, True, True])
    names, _ = rankings([0.3, 0.9, 0.1, 0.5, 0.4], counted)
    assert names == [("best", 3), ("median", 4), ("worst", 0)]


def test_few_queries_are_listed_once():
    assert rankings([0.3])[0] == [("best", 0)]
    assert rankings([0.3, 0.4])[0] == [("best", 1), ("worst", 0)]
    assert rankings([0.3], torch.tensor([False]))[0] == []


def test_a_gallery_shorter_than_the_list():
    assert rankings([0.3], length=50)[1] == [30]
