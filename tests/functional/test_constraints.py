from __future__ import annotations

import pytest
import torch
from torch.nn.functional import normalize

from pplr_lightning.functional import constrain_labels
from pplr_lightning.functional.constraints import linked_sets


def case(seed: int, draw_features):
    """Draws clusters of 200 images, people who are not quite them, and pairs that are true."""
    generator = torch.Generator().manual_seed(seed)

    def draw(most, *shape):
        return torch.randint(0, most, shape, generator=generator)

    persons = draw(30, 200)
    labels = torch.where(draw(3, 200) == 0, draw(25, 200), persons // 2) - 1
    labels = labels.unique(return_inverse=True)[1] - 1
    pairs = draw(200, 400, 2)
    pairs = pairs[pairs[:, 0] != pairs[:, 1]]
    same = (persons[pairs] == persons[pairs][:, :1]).all(dim=1)
    return draw_features(seed, 200), labels, pairs[same], pairs[~same][: 10 + 60 * (seed % 2)]


@pytest.mark.parametrize("seed", range(8))
def test_pairs_are_obeyed_and_little_else_changes(seed, draw_features):
    features, labels, must, cannot = case(seed, draw_features)
    found = constrain_labels(features, labels, must_link=must, cannot_link=cannot)
    ends = found[cannot]
    assert len(cannot) > 9
    assert not ((ends[:, 0] == ends[:, 1]) & (ends[:, 0] >= 0)).any()
    assert len(must) > 5
    assert (found[must][:, 0] == found[must][:, 1]).all()
    assert (found[must] >= 0).all()
    sizes = found[found >= 0].bincount()
    assert (sizes > 0).all()
    # What is clustered stays so, unless it is alone.
    lost = (labels >= 0) & (found < 0)
    assert not torch.isin(lost.nonzero()[:, 0], must).any()
    # Clusters without a pair are as they were.
    touched = labels[torch.cat([must.flatten(), cannot.flatten()])].unique()
    for cluster in set(labels.unique().tolist()) - {-1, *touched.tolist()}:
        members = (labels == cluster).nonzero()[:, 0]
        assert torch.equal((found == found[members[0]]).nonzero()[:, 0], members)


def test_pairs_that_are_obeyed_already_change_nothing(draw_features):
    labels = torch.tensor([1, 1, 0, 0, -1, 2])  # a class of one stays, too
    pairs = {"must_link": torch.tensor([[0, 1]]), "cannot_link": torch.tensor([[0, 2], [4, 5]])}
    features = draw_features(0, 6)
    assert torch.equal(constrain_labels(features, labels, **pairs), labels)
    assert torch.equal(constrain_labels(features, labels), labels)


def test_whole_clusters_and_outliers_are_joined(draw_features):
    labels = torch.tensor([0, 0, 1, 1, 2, 2, -1, -1, -1, -1])
    must = torch.tensor([[4, 0], [6, 5], [7, 8]])
    found = constrain_labels(draw_features(0, 10), labels, must_link=must)
    assert found.tolist() == [0, 0, 1, 1, 0, 0, 0, 2, 2, -1]


def at(*degrees):
    angles = torch.tensor(degrees).deg2rad()
    return torch.stack([angles.cos(), angles.sin()], dim=1)


def test_a_cluster_is_parted_at_what_is_nearest():
    features = at(0.0, 5, 10, 80, 85, 90, 40, 50)
    labels = torch.zeros(8, dtype=torch.int64)
    cannot = torch.tensor([[0, 5]])
    found = constrain_labels(features, labels, cannot_link=cannot)
    assert found.tolist() == [0, 0, 0, 1, 1, 1, 0, 1]
    # What is linked is one, at its mean, and the larger keeps the number.
    must = torch.tensor([[5, 4], [4, 1]])
    found = constrain_labels(features, labels, cannot_link=cannot, must_link=must)
    assert found.tolist() == [1, 0, 1, 0, 0, 0, 0, 0]
    # Of those that cannot be with the rest the near ones are one; what is alone is none.
    must = torch.tensor([[0, 1], [1, 2]])
    cannot = torch.tensor([[0, 4], [0, 5], [0, 6]])
    rows = [0, 1, 2, 4, 5, 6]
    found = constrain_labels(features[:7], labels[:7], must_link=must, cannot_link=cannot)
    assert found[rows].tolist() == [0, 0, 0, 1, 1, -1]


@pytest.mark.parametrize(("people", "expected"), [(1, [1.7, 6.3, 0.0]), (3, [3.0, 1.1, 1.4])])
def test_what_is_split_off(people, expected):
    """Of six images that are said not to be the person of 19, as docs/labels.md tells."""
    persons = torch.tensor([0] * 19 + [1 + image % people for image in range(6)])
    must = torch.tensor([[0, image] for image in range(1, 19)])
    cannot = torch.tensor([[0, image] for image in range(19, 25)])
    same_person = persons[19:, None] == persons[19:]
    outliers, right, wrong = 0, 0, 0
    for seed in range(50):
        generator = torch.Generator().manual_seed(seed)
        # Unit centres with a cosine of .7 or so, and images of .6 with their own.
        common = normalize(torch.randn(64, generator=generator), dim=0)
        own = normalize(torch.randn(people + 1, 64, generator=generator), dim=1)
        centers = normalize(0.7**0.5 * common + 0.3**0.5 * own, dim=1)
        noise = 1.3 / 64**0.5 * torch.randn(25, 64, generator=generator)
        found = constrain_labels(
            normalize(centers[persons] + noise, dim=1),
            torch.zeros(25, dtype=torch.int64),
            must_link=must,
            cannot_link=cannot,
        )[19:]
        outliers += int((found < 0).sum())
        joined = ((found[:, None] == found) & (found >= 0)).triu(1)
        right += int((joined & same_person).sum())
        wrong += int((joined & ~same_person).sum())
    assert [outliers / 50, right / 50, wrong / 50] == pytest.approx(expected, abs=0.25)


def test_an_image_in_a_wrong_cluster_does_not_join_that_with_its_own():
    features = at(0.0, 2, 4, 90, 92, 94, 40, 42)
    labels = torch.tensor([0, 0, 0, 1, 1, 1, 2, 2])
    must = torch.tensor([[0, 1], [2, 3], [5, 6]])
    cannot = torch.tensor([[0, 2], [3, 5]])
    found = constrain_labels(features, labels, must_link=must, cannot_link=cannot)
    assert found.tolist() == [0, 0, 1, 1, 1, 2, 2, 2]


def test_dropped_images_link_others_and_are_in_no_cluster(draw_features):
    labels = torch.tensor([0, 0, 1, 1, 2, 2, 2])
    dropped = torch.tensor([1, 0, 0, 0, 1, 0, 1], dtype=torch.bool)
    must = torch.tensor([[1, 0], [0, 2]])
    found = constrain_labels(draw_features(0, 7), labels, must_link=must, dropped=dropped)
    assert found.tolist() == [-1, 0, 0, 0, -1, -1, -1]  # 5 is alone now


def test_linked_sets_follow_chains():
    assert linked_sets(torch.tensor([[4, 2], [0, 4]]), 5).tolist() == [0, 1, 0, 2, 0]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"must_link": [[0, 1], [1, 2]], "cannot_link": [[2, 0]]}, "2 and 0 cannot be linked, but"),
        ({"cannot_link": [[1, 1]]}, "images 1 and 1 cannot be linked"),
        ({"must_link": [[0, 3]]}, "must_link must be of images 0 to 2, got 0 to 3"),
        ({"cannot_link": [[-1, 0]]}, "cannot_link must be of images 0 to 2, got -1 to 0"),
        ({"must_link": [[0, 1, 2]]}, "must_link"),
        ({"dropped": [True]}, "dropped"),
    ],
)
def test_complaints(options, message, draw_features):
    options = {name: torch.tensor(value) for name, value in options.items()}
    with pytest.raises(ValueError, match=message):
        constrain_labels(draw_features(0, 3), torch.zeros(3, dtype=torch.int64), **options)
