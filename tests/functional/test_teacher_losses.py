from __future__ import annotations

import math

import pytest
import torch
from torch.nn import functional as F

from pplr_lightning.functional import (
    consistency_loss,
    hard_instance_loss,
    soft_cross_entropy,
)

from .test_prototypes import assert_equal

DTYPES = pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
ICE = pytest.mark.parametrize("name", ["ice_step_few_proxies", "ice_step_many_proxies"])


@DTYPES
def test_soft_cross_entropy_equals_mmt(reference, dtype):
    arrays = reference("mmt_losses")
    logits = arrays["logits_1"].to(dtype).requires_grad_()
    told = arrays["mean_logits_2"].to(dtype).requires_grad_()
    loss = soft_cross_entropy(logits, told)
    loss.backward()
    assert_equal(loss.detach(), arrays["soft_ce"])
    assert_equal(logits.grad, arrays["soft_ce_grad"])
    assert told.grad is None


def test_a_sure_teacher_gives_the_plain_cross_entropy():
    logits, targets = torch.randn(5, 3), torch.tensor([0, 2, 1, 0, 2])
    told = 1e4 * F.one_hot(targets, 3)
    expected = F.cross_entropy(logits, targets)
    torch.testing.assert_close(soft_cross_entropy(logits, told), expected)


@ICE
@DTYPES
def test_hard_instance_loss_equals_ice(reference, name, dtype):
    arrays = reference(name)
    queries = arrays["student"].to(dtype).requires_grad_()
    keys, targets = arrays["teacher_second"].to(dtype), arrays["targets"]
    temperature = float(arrays["tau_v"])
    loss = hard_instance_loss(queries, keys, targets, targets, temperature=temperature)
    loss.backward()
    assert_equal(loss.detach(), arrays["loss_vcl"])
    assert_equal(queries.grad, arrays["grad_vcl"])


@ICE
@DTYPES
def test_consistency_loss_equals_ice(reference, name, dtype):
    arrays = reference(name)
    queries = arrays["student"].to(dtype).requires_grad_()
    weak = arrays["teacher_weak"].to(dtype).requires_grad_()
    keys = arrays["teacher_second"].to(dtype)
    loss = float(arrays["kl_weight"]) * consistency_loss(
        queries, keys, weak, weak, temperature=float(arrays["tau_s"])
    )
    loss.backward()
    assert_equal(loss.detach(), arrays["loss_kl"])
    assert_equal(queries.grad, arrays["grad_kl"])
    assert weak.grad is None


def test_rows_of_a_part_of_the_batch_give_its_share(reference):
    """Each process has its queries and the keys of all: their mean is the whole batch's."""
    arrays = reference("ice_step_few_proxies")
    queries, keys, weak = (arrays[n] for n in ("student", "teacher_second", "teacher_weak"))
    targets = arrays["targets"]
    halves = [slice(0, 8), slice(8, 16)]
    hard = [hard_instance_loss(queries[h], keys, targets[h], targets) for h in halves]
    soft = [consistency_loss(queries[h], keys, weak[h], weak) for h in halves]
    assert_equal(sum(hard) / 2, hard_instance_loss(queries, keys, targets, targets))
    assert_equal(sum(soft) / 2, consistency_loss(queries, keys, weak, weak))


def test_a_query_without_a_key_of_its_cluster_adds_nothing():
    queries = torch.eye(2, requires_grad=True)
    targets = torch.tensor([0, 5])
    loss = hard_instance_loss(queries, torch.eye(2), targets, torch.tensor([0, 1]), temperature=1.0)
    loss.backward()
    assert loss.item() == pytest.approx(math.log1p(math.exp(-1)) / 2)
    assert torch.equal(queries.grad[1], torch.zeros(2))
    assert queries.grad.isfinite().all()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: soft_cross_entropy(torch.ones(2), torch.ones(2)), r"logits must be \(B, C\)"),
        (
            lambda: soft_cross_entropy(torch.ones(2, 3), torch.ones(2, 4)),
            r"teacher_logits must have shape \(2, 3\), got \(2, 4\); score the same classes",
        ),
        (
            lambda: hard_instance_loss(
                torch.ones(2, 3), torch.ones(2, 4), torch.zeros(2), torch.zeros(2)
            ),
            r"queries must be \(B, D\) and keys \(M, D\), got shapes \(2, 3\) and \(2, 4\)",
        ),
        (
            lambda: hard_instance_loss(
                torch.ones(2, 3), torch.ones(4, 3), torch.zeros(2), torch.zeros(2)
            ),
            r"key_targets must have shape \(4,\), got \(2,\)",
        ),
        (
            lambda: consistency_loss(*[torch.ones(2, 3)] * 4, temperature=0),
            "temperature must be above 0, got 0",
        ),
        (
            lambda: consistency_loss(*[torch.ones(2, 3)] * 3, torch.ones(4, 3)),
            r"weak_queries @ weak_keys.T must have shape \(2, 2\), got \(2, 4\)",
        ),
    ],
)
def test_bad_input(call, message):
    with pytest.raises(ValueError, match=message) as error:
        call()
    assert "\n" not in str(error.value)
