from __future__ import annotations

import numpy as np
import pytest
import torch

from pplr_lightning.functional import count_linked, dbscan, jaccard_distance


def plain(distance, eps, min_samples, cannot_link):
    """The same by loops over all pairs of a dense matrix."""
    images = len(distance)
    near = distance <= eps + 1e-6
    core = near.sum(1) >= min_samples
    rows = cannot_link.tolist()
    apart = {(i, j) for i, g in rows for j, h in rows if g == h and i != j}
    cluster = {i: {i} for i in range(images) if core[i]}

    def may(one, other):
        return not any((i, j) in apart for i in one for j in other)

    # Plain components, which are joined anew where they hold a pair.
    for allowed in (lambda one, other: True, may):
        pairs = [(distance[i, j], i, j) for i in cluster for j in cluster if i < j and near[i, j]]
        for _, i, j in sorted(pairs):
            if cluster[i] is not cluster[j] and allowed(cluster[i], cluster[j]):
                joined = cluster[i] | cluster[j]
                cluster |= dict.fromkeys(joined, joined)
        if allowed is not may:
            cluster = {i: c if may(c, c) else {i} for i, c in cluster.items()}
    firsts = sorted({min(c) for c in cluster.values()})
    sets = [set(cluster[first]) for first in firsts]
    reach = {
        i: sorted(firsts.index(min(cluster[j])) for j in cluster if near[i, j])
        for i in range(images)
        if not core[i]
    }
    grouped = {i for i, _ in rows}
    nearest = {i: min((distance[i, j] for j in cluster if near[i, j]), default=9) for i in reach}
    for i in sorted(reach, key=lambda i: (nearest[i], i)):
        for number in reach[i]:
            if i not in grouped or may({i}, sets[number]):
                sets[number].add(i)
                break
    return [next((n for n, c in enumerate(sets) if i in c), -1) for i in range(images)]


@pytest.mark.parametrize("seed", range(20))
def test_equals_loops_over_all_pairs(seed, draw_features):
    generator = torch.Generator().manual_seed(seed)
    features = draw_features(seed, 60, dim=4, duplicates=5)
    distance = jaccard_distance(features, k1=8, k2=3)
    rows = torch.randint(0, 60, (50 + 10 * (seed % 5),), generator=generator)
    groups = torch.randint(0, 15, (len(rows),), generator=generator)
    cannot_link = torch.stack([rows, groups], dim=1)
    stored, dense = distance.tocoo(), np.ones((60, 60), np.float32)
    dense[stored.row, stored.col] = stored.data
    free = dbscan(distance, eps=0.55, min_samples=3)
    found = dbscan(distance, eps=0.55, min_samples=3, cannot_link=cannot_link)
    assert found.tolist() == plain(dense, 0.55, 3, cannot_link)
    assert torch.equal(
        found, dbscan(torch.from_numpy(dense), eps=0.55, min_samples=3, cannot_link=cannot_link)
    )
    assert count_linked(free, cannot_link) > 0
    assert count_linked(found, cannot_link) == 0
    assert int((found >= 0).sum()) > 30


def test_of_two_that_are_no_cores_the_nearer_joins():
    distance = torch.full((5, 5), 9.0)
    distance[:3, :3] = 0.1
    distance[0, 3] = distance[3, 0] = 0.3
    distance[0, 4] = distance[4, 0] = 0.2
    distance.fill_diagonal_(0)
    assert dbscan(distance, min_samples=3).tolist() == [0] * 5
    pair = torch.tensor([[3, 7], [4, 7]])
    assert dbscan(distance, min_samples=3, cannot_link=pair).tolist() == [0, 0, 0, -1, 0]


def test_groups_that_change_nothing(draw_features):
    distance = jaccard_distance(draw_features(0, 200), k1=10, k2=3)
    free = dbscan(distance, eps=0.6)
    assert int((free < 0).sum())
    assert int(free.max()) > 5
    own = torch.arange(200)
    one_each = torch.stack([own, torch.where(free < 0, 0, own + 1)], dim=1)
    one_each = one_each[(free >= 0) | (own == int((free < 0).nonzero()[0]))]
    for groups in (torch.empty(0, 2, dtype=torch.int64), one_each):
        assert torch.equal(dbscan(distance, eps=0.6, cannot_link=groups), free)


def test_a_table_that_does_not_fit():
    distance = torch.zeros(4, 4)
    for table, message in (
        (torch.zeros(3, 2), r"\(M, 2\) of int64, got \(3, 2\) of torch.float32"),
        (torch.zeros(3, dtype=torch.int64), r"\(M, 2\) of int64, got \(3,\)"),
        (torch.tensor([[4, 0]]), "of images 0 to 3, got 4 to 4"),
        (torch.tensor([[-1, 0]]), "of images 0 to 3, got -1 to -1"),
    ):
        with pytest.raises(ValueError, match=message):
            dbscan(distance, cannot_link=table)
