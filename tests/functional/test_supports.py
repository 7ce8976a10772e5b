from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from pplr_lightning.functional import (
    label_preserving_loss,
    prototype_loss,
    support_samples,
)
from pplr_lightning.functional.supports import support_degree

from .test_prototypes import assert_equal

DTYPES = pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
ISE = pytest.mark.parametrize("name", ["ise_market", "ise_msmt", "ise_topk3"])


@ISE
@DTYPES
def test_equals_the_authors(reference, name, dtype):
    arrays = reference(name)
    raw = arrays["raw_features"].to(dtype).requires_grad_()
    memory, targets, k = arrays["memory"].to(dtype), arrays["targets"], int(arrays["topk"])
    features = F.normalize(raw, dim=1)
    supports = support_samples(
        features, targets, memory, degree=float(arrays["lambda_now"]), neighbors=k
    )
    assert_equal(supports.detach(), arrays["supports"])
    of_supports = targets.repeat_interleave(k)
    preserving = label_preserving_loss(
        features, supports, targets, of_supports, temperature=float(arrays["temp_lp"])
    )
    assert_equal(preserving.detach(), arrays["loss_preserving"])
    (grad,) = torch.autograd.grad(preserving, raw, retain_graph=True)
    assert_equal(grad, arrays["grad_raw_preserving"])
    extension = prototype_loss(
        torch.cat([features, supports]),
        memory,
        torch.cat([targets, of_supports]),
        temperature=float(arrays["temp"]),
    )
    assert_equal(extension.detach(), arrays["loss_extension"])
    (extension + float(arrays["lp_weight"]) * preserving).backward()
    assert_equal(raw.grad, arrays["grad_raw"])


def test_the_degree_grows_as_the_authors_does(reference):
    arrays = reference("ise_lambda")
    iterations = int(arrays["iterations"])
    found = [
        support_degree(step, int(arrays["epochs"]) * iterations, base=float(arrays["base_lambda"]))
        for step in (arrays["epoch"] * iterations + arrays["iteration"]).flatten().tolist()
    ]
    assert_equal(torch.tensor(found, dtype=torch.float64), arrays["lambda_now"].flatten())


def test_order_and_processes_change_nothing(reference):
    """Clusters are told by their labels, and each process has its images and all supports."""
    arrays = reference("ise_market")
    features, supports, targets = (arrays[n] for n in ("features", "supports", "targets"))
    expected = label_preserving_loss(features, supports, targets, targets)
    order = torch.randperm(len(targets), generator=torch.Generator().manual_seed(0))
    mixed = label_preserving_loss(features, supports[order], targets, targets[order])
    assert_equal(mixed, expected)
    halves = [
        label_preserving_loss(features[half], supports, targets[half], targets)
        for half in (slice(0, 8), slice(8, 16))
    ]
    assert_equal(sum(halves) / 2, expected)


def test_no_degree_leaves_the_features():
    features, prototypes = (F.normalize(torch.randn(n, 8), dim=1) for n in (6, 4))
    targets = torch.tensor([0, 1, 2, 3, 0, 1])
    found = support_samples(features, targets, prototypes, degree=0.0, neighbors=2)
    torch.testing.assert_close(found, features.repeat_interleave(2, dim=0))


def test_a_small_temperature_and_a_cluster_without_support_stay_finite():
    features = torch.eye(3, requires_grad=True)
    loss = label_preserving_loss(
        features,
        torch.eye(3),
        torch.tensor([0, 1, 9]),
        torch.tensor([0, 1, 1]),
        temperature=1e-3,
    )
    loss.backward()
    assert loss.isfinite()
    assert features.grad.isfinite().all()
    assert torch.equal(features.grad[2], torch.zeros(3))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: support_samples(torch.ones(2, 3), torch.zeros(2), torch.ones(2, 4), degree=1),
            r"features must be \(B, D\) and prototypes \(C, D\)",
        ),
        (
            lambda: support_samples(
                torch.eye(2), torch.tensor([0, 1]), torch.eye(2), degree=1, neighbors=2
            ),
            "neighbors must be below the number of clusters, got 2 of 2",
        ),
        (
            lambda: support_samples(torch.eye(2), torch.tensor([0, 2]), torch.eye(2), degree=1),
            "targets must be 0 to 1, got 0 to 2",
        ),
        (
            lambda: label_preserving_loss(
                torch.eye(2), torch.eye(2), torch.zeros(2), torch.zeros(3)
            ),
            r"support_targets must have shape \(2,\), got \(3,\); give one per support",
        ),
        (
            lambda: label_preserving_loss(
                torch.eye(2), torch.eye(2), torch.zeros(2), torch.zeros(2), temperature=0
            ),
            "temperature must be above 0, got 0",
        ),
    ],
)
def test_bad_input(call, message):
    with pytest.raises(ValueError, match=message) as error:
        call()
    assert "\n" not in str(error.value)
