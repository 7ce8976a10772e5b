from __future__ import annotations

import pytest
import torch

from pplr_lightning import functional as F
from pplr_lightning.functional import jaccard, retrieval
from pplr_lightning.functional.compiled import over_rows


def everything(features):
    """What compiled loops give, in many small chunks."""
    distance = F.jaccard_distance(features, k1=12, k2=4)
    parts = torch.stack([features, features.flip(1)], dim=2)
    found = F.retrieval_metrics(
        torch.cdist(features[:60], features[60:]),
        query_ids=torch.arange(60) % 9,
        gallery_ids=torch.arange(len(features) - 60) % 9,
        query_cameras=torch.arange(60) % 2,
        gallery_cameras=torch.arange(len(features) - 60) % 2,
    )
    return (
        distance.indptr,
        distance.indices,
        distance.data,
        F.cross_agreement(features, parts),
        found,
    )


@pytest.mark.usefixtures("three_threads")
def test_results_do_not_depend_on_the_number_of_threads(draw_features, monkeypatch):
    monkeypatch.setattr(jaccard, "CHUNK", 7)
    monkeypatch.setattr(retrieval, "CHUNK_BYTES", 8 * 240 * 5)
    features = draw_features(5, 300, duplicates=9)
    three = everything(features)
    torch.set_num_threads(1)
    *arrays, found = everything(features)
    for array, other in zip(arrays, three, strict=False):
        assert (array == other).all()
    assert found == three[-1]


@pytest.mark.usefixtures("three_threads")
def test_the_results_come_in_the_order_of_the_rows():
    spans = over_rows(lambda start, stop: (start, stop), range(5, 26), chunk=10)
    assert spans == [(5, 15), (15, 25), (25, 26)]
    assert over_rows(lambda start, stop: stop - start, range(4, 4), chunk=10) == [0]
