from __future__ import annotations

import math

import pytest
import torch

from pplr_lightning.functional import (
    margin_triplet_loss,
    soft_triplet_loss,
    softmax_triplet_loss,
)

from .test_prototypes import assert_equal


@pytest.fixture
def arrays(reference):
    return reference("mmt_losses")


DTYPES = pytest.mark.parametrize("dtype", [torch.float64, torch.float32])


@DTYPES
def test_softmax_form_equals_mmt(arrays, dtype):
    rows = arrays["features_1"].to(dtype).requires_grad_()
    loss = softmax_triplet_loss(rows, arrays["targets"])
    loss.backward()
    assert_equal(loss.detach(), arrays["triplet"])
    assert_equal(rows.grad, arrays["triplet_grad"])


@DTYPES
def test_margin_form_equals_mmt(arrays, dtype):
    rows = arrays["features_1"].to(dtype).requires_grad_()
    loss = margin_triplet_loss(rows, arrays["targets"], margin=1.4)
    loss.backward()
    assert_equal(loss.detach(), arrays["hinge_triplet_m14"])
    assert_equal(rows.grad, arrays["hinge_triplet_m14_grad"])


@DTYPES
def test_soft_form_equals_mmt(arrays, dtype):
    rows = arrays["features_1"].to(dtype).requires_grad_()
    told = arrays["mean_features_2"].to(dtype).requires_grad_()
    loss = soft_triplet_loss(rows, told, arrays["targets"])
    loss.backward()
    assert_equal(loss.detach(), arrays["soft_triplet"])
    assert_equal(loss.detach(), arrays["soft_triplet_openunreid"])
    assert_equal(rows.grad, arrays["soft_triplet_grad"])
    assert told.grad is None


def test_margin_by_hand():
    # Image 2 is alone in its cluster: p = 0. Distances: 0-1 is 1, 0-2 is 3, 1-2 is 2.
    rows = torch.tensor([[0.0], [1.0], [3.0]])
    loss = margin_triplet_loss(rows, torch.tensor([7, 7, 2]), margin=2.5)
    assert loss.item() == pytest.approx((0.5 + 1.5 + 0.5) / 3)


def test_a_teacher_of_another_width_decides_how_far_a_pair_is_told_apart():
    rows, targets = torch.tensor([[0.0], [1.0], [3.0]]), torch.tensor([7, 7, 2])
    told = torch.tensor([[0.0, 0.0], [0.0, 0.0], [0.0, 80.0]])  # sure: the softmax form
    expected = softmax_triplet_loss(rows, targets)
    torch.testing.assert_close(soft_triplet_loss(rows, told, targets), expected)
    told = torch.zeros(3, 5)  # does not know
    log = [math.log1p(math.exp(x)) for x in (1 - 3, 1 - 2, 0 - 2)]
    half = sum(value - 0.5 * x for value, x in zip(log, (-2, -1, -2), strict=True)) / 3
    assert soft_triplet_loss(rows, told, targets).item() == pytest.approx(half)


@pytest.mark.parametrize("labels", [[0, 0, 0, 0], [0, 0, 1, 1], [0, 1, 2, 3]])
def test_without_negatives_or_with_duplicates_gradients_are_finite(labels):
    rows, targets = torch.ones(4, 3, requires_grad=True), torch.tensor(labels)
    loss = soft_triplet_loss(rows, torch.ones(4, 3), targets)
    loss = loss + margin_triplet_loss(rows, targets, margin=0.3)
    loss.backward()
    assert loss.isfinite()
    assert rows.grad.isfinite().all()
    if len(set(labels)) == 1:
        assert loss == 0


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: margin_triplet_loss(torch.ones(2, 3), torch.zeros(2), margin=-1),
            "margin must be finite and at least 0, got -1",
        ),
        (
            lambda: margin_triplet_loss(torch.ones(2, 3), torch.zeros(3), margin=0),
            r"targets must have shape \(2,\), got \(3,\)",
        ),
        (
            lambda: soft_triplet_loss(torch.ones(2, 3), torch.ones(3, 3), torch.zeros(2)),
            r"targets must have shape \(3,\), got \(2,\)",
        ),
        (
            lambda: soft_triplet_loss(torch.ones(2, 3), torch.ones(2), torch.zeros(2)),
            r"teacher_embeddings must be \(B, D\), got shape \(2,\)",
        ),
    ],
)
def test_bad_input(call, message):
    with pytest.raises(ValueError, match=message) as error:
        call()
    assert "\n" not in str(error.value)
