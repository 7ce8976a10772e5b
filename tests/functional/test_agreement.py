from __future__ import annotations

import pytest
import torch

from pplr_lightning.functional import cross_agreement, nearest_neighbors, relative_agreement
from pplr_lightning.functional.agreement import overlap


def on_circle(*degrees):
    angle = torch.deg2rad(torch.tensor(degrees, dtype=torch.float32))
    return torch.stack([angle.cos(), angle.sin()], dim=1)


@pytest.mark.parametrize("given", [False, True])
def test_equals_the_authors_agreement(reference, given):
    arrays = reference("labels")
    features = arrays["features_global"]
    neighbors = nearest_neighbors(features, 30) if given else None
    agreement = cross_agreement(features, arrays["features_part"], k=20, neighbors=neighbors)
    assert torch.equal(agreement, arrays["cross_agreement"])


def test_hand_computed_agreement():
    # Nearest two without itself: globally 0 sees {1, 2}, in the part {1, 3}: 1 of 3 agree.
    view = on_circle(0, 10, 25, 180)
    part = on_circle(0, 10, 180, 25)
    agreement = cross_agreement(view, torch.stack([view, part], dim=2), k=2)
    assert agreement[:, 0].tolist() == [1, 1, 1, 1]
    assert agreement[0, 1] == pytest.approx(1 / 3)
    assert agreement.dtype == torch.float32


def without_itself(neighbors):
    """Drop each image from its list, else the last of the list."""
    return [
        set([other for other in row if other != image][: len(row) - 1])
        for image, row in enumerate(neighbors.tolist())
    ]


def test_drops_itself_else_the_last():
    first = torch.tensor([[0, 1, 2], [2, 1, 0], [0, 1, 3], [0, 1, 3]])
    second = torch.tensor([[0, 2, 1], [1, 0, 3], [0, 2, 1], [1, 3, 2]])
    shared = torch.tensor([2, 1, 2, 1])  # {1,2}{1,2}; {2,0}{0,3}; {0,1}{0,1}; {0,1}{1,2}
    assert torch.equal(overlap(first, second, k=2), shared / (4 - shared))
    # The same rows as images 2 and 3 of a larger set, whose first two are elsewhere.
    assert torch.equal(overlap(first[2:], second[2:], k=2, start=2), (shared / (4 - shared))[2:])


def test_equals_sets_on_duplicates(draw_features):
    view = draw_features(0, 120, duplicates=30)
    part = draw_features(1, 120, duplicates=30)
    near = [without_itself(nearest_neighbors(features, 9)) for features in (view, part)]
    expected = [len(a & b) / len(a | b) for a, b in zip(*near, strict=True)]
    agreement = cross_agreement(view, part[:, :, None], k=8)
    torch.testing.assert_close(agreement[:, 0], torch.tensor(expected))


@pytest.mark.parametrize(
    ("part", "options", "message"),
    [
        (torch.ones(10, 4), {}, r"features_part must be \(10, D, P\), got shape \(10, 4\)"),
        (torch.ones(9, 4, 1), {}, r"got shape \(9, 4, 1\)"),
        (torch.ones(10, 4, 0), {}, r"got shape \(10, 4, 0\); stack one part or more"),
        (torch.ones(10, 1, 1), {"k": 10}, "k=10 for 9 images"),
        (torch.ones(10, 1, 1), {"k": 0}, "k must be at least 1, got 0"),
        (torch.ones(10, 4, 1), {"k": 3}, "L2-normalised"),
        (
            torch.ones(10, 1, 1),
            {"k": 3, "neighbors": torch.zeros(10, 3, dtype=torch.int64)},
            r"neighbors must be \(10, 4 or more\), got shape \(10, 3\)",
        ),
    ],
)
def test_bad_input(draw_features, part, options, message):
    with pytest.raises(ValueError, match=message):
        cross_agreement(draw_features(2, 10), part, **options)


def test_lists_that_do_not_fit():
    lists = torch.zeros(4, 3, dtype=torch.int64)
    with pytest.raises(ValueError, match=r"hold k \+ 1 = 4 columns, got shapes \(4, 3\) and"):
        overlap(lists, lists, k=3)
    with pytest.raises(ValueError, match="equally many images"):
        overlap(lists, lists[:3], k=2)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_gpu_equals_cpu(reference):
    arrays = reference("labels")
    agreement = cross_agreement(arrays["features_global"].cuda(), arrays["features_part"].cuda())
    assert torch.equal(agreement.cpu(), arrays["cross_agreement"])


class TestRelative:
    def test_hand_computed(self):
        agreement = torch.tensor([[0.2, 0.0], [0.6, 0.0], [0.4, 0.0], [0.0, 0.5]])
        found = relative_agreement(agreement, torch.tensor([0, 0, 1, -1]))
        assert torch.allclose(found[:, 0], torch.tensor([0.5, 1.0, 1.0, 0.0]))
        assert found[:, 1].tolist() == [1, 1, 1, 1]  # a part that agrees nowhere

    def test_does_not_depend_on_how_far_all_agree(self):
        agreement, classes = torch.rand(50, 3), torch.arange(50) % 7 - 1
        found = relative_agreement(agreement, classes)
        assert torch.allclose(relative_agreement(0.3 * agreement, classes), found)
        assert ((found >= 0) & (found <= 1)).all()

    @pytest.mark.parametrize(
        ("classes", "message"),
        [
            (torch.zeros(3).long(), r"classes must have shape \(4,\), got \(3,\)"),
            (torch.full((4,), -1), "classes must hold one that is 0 or above, got -1 alone"),
        ],
    )
    def test_bad_input(self, classes, message):
        with pytest.raises(ValueError, match=message):
            relative_agreement(torch.rand(4, 2), classes)
