from __future__ import annotations

import math

import pytest
import torch
from torch.nn import functional as F

from pplr_lightning.functional import class_means, prototype_loss, update_prototypes

MEMORIES = [
    ("cluster_memory", "every"),
    ("cluster_memory_m02", "every"),
    ("cluster_memory_hard", "hardest"),
]


def assert_equal(actual, expected):
    """Check float64 to 1e-12, float32 to 1e-5 of the largest expected value."""
    assert actual.shape == expected.shape
    tolerance = 1e-12 if actual.dtype == torch.float64 else 1e-5 * float(expected.abs().max())
    assert (actual.double() - expected).abs().max() <= tolerance


def draw(seed, classes, batch, dim=16, dtype=torch.float32):
    """Draw prototypes, features and targets of few classes, so that most repeat."""
    generator = torch.Generator().manual_seed(seed)
    rows = [
        F.normalize(torch.randn(count, dim, generator=generator, dtype=dtype), dim=1)
        for count in (classes, batch)
    ]
    return *rows, torch.randint(classes, (batch,), generator=generator)


def one_after_the_other(prototypes, features, targets, momentum):
    rows = prototypes.clone()
    for feature, target in zip(features, targets.tolist(), strict=True):
        rows[target] = F.normalize(momentum * rows[target] + (1 - momentum) * feature, dim=0)
    return rows


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize(("name", "rule"), MEMORIES)
def test_equals_the_authors_cluster_memory(reference, name, rule, dtype):
    arrays = reference(name)
    memory = arrays["memory_start"].to(dtype)
    options = {"momentum": float(arrays["momentum"]), "rule": rule}
    for step in range(4):
        raw = arrays["raw"][step].to(dtype).requires_grad_()
        targets = arrays["targets"][step]
        unit = F.normalize(raw, dim=1)
        unit.retain_grad()
        again = F.normalize(unit, dim=1)  # as their memory does: its gradient is tangential
        loss = prototype_loss(again, memory, targets, temperature=float(arrays["temperature"]))
        loss.backward()
        assert_equal(loss.detach(), arrays["loss"][step])
        assert_equal(raw.grad, arrays["grad_raw"][step])
        assert_equal(unit.grad, arrays["grad_unit"][step])
        memory = update_prototypes(memory, unit, targets, **options)
        assert not memory.requires_grad
        assert_equal(memory, arrays["memory_after"][step])


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_equals_the_authors_instance_memory(reference, dtype):
    arrays = reference("hybrid_memory_spcl")
    memory = arrays["memory_start"].to(dtype)
    numbers, labels = arrays["labels"].unique(return_inverse=True)  # the authors skip empty numbers
    for step in range(4):
        raw = arrays["raw"][step].to(dtype).requires_grad_()
        images = arrays["indexes"][step]
        unit = F.normalize(raw, dim=1)
        unit.retain_grad()
        means = class_means(memory, labels, len(numbers))
        loss = prototype_loss(
            unit, means, labels[images], temperature=float(arrays["temperature"]), floor=1e-6
        )
        loss.backward()
        assert_equal(loss.detach(), arrays["loss"][step])
        assert_equal(raw.grad, arrays["grad_raw"][step])
        assert_equal(unit.grad, arrays["grad_unit"][step])
        memory = update_prototypes(memory, unit, images, momentum=float(arrays["momentum"]))
        assert_equal(memory, arrays["memory_after"][step])


def test_loss_without_the_floor_is_another(reference):
    arrays = reference("hybrid_memory_spcl")
    numbers, labels = arrays["labels"].unique(return_inverse=True)
    loss = prototype_loss(
        F.normalize(arrays["raw"][0], dim=1),
        class_means(arrays["memory_start"], labels, len(numbers)),
        labels[arrays["indexes"][0]],
        temperature=float(arrays["temperature"]),
    )
    assert_equal(loss, arrays["loss_plain_step0"])
    assert abs(float(loss - arrays["loss"][0])) > 0.1


@pytest.mark.parametrize("seed", range(3))
def test_equals_the_loop_to_the_last_bit(seed):
    prototypes, features, targets = draw(seed, 5, 40, dim=256)
    expected = one_after_the_other(prototypes, features, targets, 0.1)
    before = prototypes.clone()
    after = update_prototypes(prototypes, features, targets, momentum=0.1)
    assert torch.equal(after, expected)
    assert torch.equal(prototypes, before)


@pytest.mark.parametrize("rule", ["every", "hardest", "mean"])
def test_absent_rows_stay_and_others_are_unit(rule):
    prototypes, features, _ = draw(0, 9, 6)
    targets = torch.tensor([4, 1, 4, 4, 8, 1])
    after = update_prototypes(prototypes, features, targets, momentum=0.3, rule=rule)
    absent = torch.tensor([0, 2, 3, 5, 6, 7])
    assert torch.equal(after[absent], prototypes[absent])
    assert (after[targets] - prototypes[targets]).abs().amax(dim=1).min() > 0.1
    torch.testing.assert_close(after.norm(dim=1), torch.ones(9))


def test_order_matters_to_every_image_alone():
    prototypes, features, _ = draw(1, 3, 8)
    targets = torch.tensor([0, 1, 0, 0, 1, 2, 0, 1])
    for rule in ("every", "hardest", "mean"):
        ahead, back = (
            update_prototypes(prototypes, rows, owners, momentum=0.1, rule=rule)
            for rows, owners in ((features, targets), (features.flip(0), targets.flip(0)))
        )
        assert (rule == "every") == bool((ahead - back).abs().max() > 0.1)


def test_hardest_is_the_first_among_equals():
    # The second and third have the same cosine to the row, and lie on either side of it.
    prototypes = torch.tensor([[1.0, 0.0]])
    features = torch.tensor([[0.8, 0.6], [0.0, 1.0], [0.0, -1.0]])
    for order, side in (([0, 1, 2], 1), ([0, 2, 1], -1), ([2, 1, 0], -1)):
        after = update_prototypes(
            prototypes, features[order], torch.zeros(3).long(), momentum=0.5, rule="hardest"
        )
        torch.testing.assert_close(after, torch.tensor([[0.5**0.5, side * 0.5**0.5]]))


def test_mean_by_hand():
    # The mean (0.4, 0.8) is not normalised before it is mixed with the row.
    prototypes = torch.tensor([[0.0, 1.0], [1.0, 0.0]])
    features = torch.tensor([[0.0, 1.0], [0.8, 0.6]])
    after = update_prototypes(
        prototypes, features, torch.tensor([1, 1]), momentum=0.25, rule="mean"
    )
    mixed = torch.tensor([0.25 * 1 + 0.75 * 0.4, 0.75 * 0.8])
    torch.testing.assert_close(after, torch.stack([prototypes[0], F.normalize(mixed, dim=0)]))


@pytest.mark.parametrize("rule", ["every", "hardest", "mean"])
def test_momentum_one_and_an_empty_batch_change_nothing(rule):
    prototypes, features, targets = draw(3, 4, 10)
    kept = update_prototypes(prototypes, features, targets, momentum=1, rule=rule)
    torch.testing.assert_close(kept, prototypes)
    empty = update_prototypes(prototypes, features[:0], targets[:0], momentum=0, rule=rule)
    assert torch.equal(empty, prototypes)
    assert empty is not prototypes


def test_half_precision_features_move_rows_of_full_precision():
    prototypes, features, targets = draw(4, 4, 10)
    after = update_prototypes(prototypes, features.bfloat16(), targets, momentum=0.2)
    assert after.dtype == torch.float32
    assert torch.equal(
        after, update_prototypes(prototypes, features.bfloat16().float(), targets, momentum=0.2)
    )


def test_loss_with_a_floor_by_hand():
    # exp of the scores is 4, 2, 2; the floor is as large as an eighth of their sum.
    features, prototypes = torch.tensor([[1.0]]), torch.tensor([[4.0], [2.0], [2.0]]).log()
    loss = prototype_loss(features, prototypes, torch.tensor([1]), temperature=1, floor=0.125)
    assert float(loss) == pytest.approx(-math.log(2 / 8.125 + 0.125), rel=1e-6)


def test_loss_with_a_floor_is_finite_at_any_temperature():
    features = torch.eye(2).requires_grad_()
    loss = prototype_loss(
        features, torch.eye(2), torch.tensor([1, 0]), temperature=1e-3, floor=1e-6
    )
    loss.backward()
    assert float(loss.detach()) == pytest.approx(-math.log(1e-6), rel=1e-5)
    assert features.grad.isfinite().all()


def test_means_by_hand():
    rows = torch.tensor([[1.0, 0.0], [0.0, 1.0], [7.0, 7.0], [3.0, 0.0]], requires_grad=True)
    means = class_means(rows, torch.tensor([2, 2, -1, 0]), 4)
    assert means.tolist() == [[3.0, 0.0], [0.0, 0.0], [0.5, 0.5], [0.0, 0.0]]
    means.sum().backward()
    assert rows.grad[:, 0].tolist() == [0.5, 0.5, 0.0, 1.0]
    assert class_means(rows, torch.full((4,), -1), 0).shape == (0, 2)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda *rows: update_prototypes(*rows, momentum=0.1, rule="last"),
            "rule must be one of every, hardest, mean, got 'last'",
        ),
        (lambda *rows: update_prototypes(*rows, momentum=1.5), r"momentum.*\[0, 1\], got 1.5"),
        (lambda *rows: prototype_loss(*rows, temperature=0), "temperature must be above 0, got 0"),
        (
            lambda *rows: prototype_loss(*rows, temperature=1, floor=1),
            r"floor must be in \[0, 1\), got 1",
        ),
        (
            lambda rows, features, targets: class_means(features, targets, 2),
            "labels must be -1 to 1, got 0 to 2",
        ),
        (
            lambda rows, features, targets: class_means(features, targets - 2, 3),
            "labels must be -1 to 2, got -2 to 0",
        ),
        (
            lambda rows, features, targets: class_means(features[0], targets, 3),
            r"rows must be \(N, D\), got shape \(4,\)",
        ),
    ],
)
def test_bad_options(call, message):
    rows, features, _ = draw(0, 3, 3, dim=4)
    with pytest.raises(ValueError, match=message):
        call(rows, features, torch.tensor([0, 1, 2]))


@pytest.mark.parametrize(
    "call",
    [
        lambda features, targets: update_prototypes(
            torch.ones(3, 4), features, targets, momentum=0.1
        ),
        lambda features, targets: prototype_loss(
            features, torch.ones(3, 4), targets, temperature=0.1
        ),
    ],
)
@pytest.mark.parametrize(
    ("shape", "targets", "message"),
    [
        ((2, 4), [0, 3], "targets must be 0 to 2, got 0 to 3; give one row to"),
        ((2, 4), [-1, 2], "targets must be 0 to 2, got -1 to 2.*leave out images"),
        ((2, 4), [1], r"targets must have shape \(2,\), got \(1,\)"),
        ((2, 5), [0, 1], r"got shapes \(2, 5\) and \(3, 4\); give both the same width"),
        ((4,), [0, 1], r"got shapes \(4,\) and \(3, 4\)"),
    ],
)
def test_bad_batch(call, shape, targets, message):
    with pytest.raises(ValueError, match=message):
        call(torch.ones(shape), torch.tensor(targets))
