from __future__ import annotations

import math

import pytest
import torch
from torch.nn import functional as F

from pplr_lightning.functional import (
    aals_loss,
    camera_contrastive_loss,
    pglr_loss,
    softmax_triplet_loss,
)
from pplr_lightning.functional.losses import refined_labels


def assert_equal(actual, expected):
    """Check to 1e-5 of the largest expected value."""
    expected = expected.to(actual.dtype)
    assert actual.shape == expected.shape
    assert (actual - expected).abs().max() <= 1e-5 * expected.abs().max()


def softplus(x):
    return math.log1p(math.exp(x))


@pytest.fixture
def arrays(reference):
    return reference("losses")


def test_aals_equals_the_authors(arrays):
    logits = arrays["logits_part"].requires_grad_()
    loss = torch.stack(
        [
            aals_loss(part, arrays["target"], agreement)
            for part, agreement in zip(
                logits.unbind(2), arrays["cross_agreement"].unbind(1), strict=True
            )
        ]
    )
    assert_equal(loss.detach(), arrays["aals_per_part"])
    loss.sum().backward()
    assert_equal(logits.grad, arrays["aals_grad_logits_part"])


def test_torch_label_smoothing_equals_the_authors(arrays):
    smoothed = [
        F.cross_entropy(part, arrays["target"], label_smoothing=0.1)
        for part in arrays["logits_part"].unbind(2)
    ]
    assert_equal(torch.stack(smoothed), arrays["label_smooth_0.1_per_part"])


def test_aals_by_hand():
    # q = (0.8, 0.2): cross entropy is -log 0.2, KL(u ‖ q) = log 0.5 - (log 0.8 + log 0.2) / 2.
    logits = torch.tensor([[math.log(8), math.log(2)]])
    divergence = math.log(0.5) - (math.log(0.8) + math.log(0.2)) / 2
    expected = 0.3 * -math.log(0.2) + 0.7 * divergence
    loss = aals_loss(logits, torch.tensor([1]), torch.tensor([0.3]))
    assert float(loss) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("beta", [0.0, 0.5, 1.0])
def test_pglr_equals_the_authors(arrays, beta):
    logits = arrays["logits_global"].requires_grad_()
    parts = arrays["logits_part"].requires_grad_()
    agreement = arrays["cross_agreement"].requires_grad_()
    loss = pglr_loss(logits, parts, arrays["target"], agreement, beta=beta)
    assert_equal(loss.detach(), arrays[f"pglr_beta{beta}"])
    loss.backward()
    assert_equal(logits.grad, arrays[f"pglr_beta{beta}_grad_logits_global"])
    assert parts.grad is None
    assert agreement.grad is None


def test_pglr_with_beta_one_is_cross_entropy(arrays):
    inputs = [arrays[key] for key in ("logits_global", "logits_part", "target", "cross_agreement")]
    assert_equal(pglr_loss(*inputs, beta=1), F.cross_entropy(inputs[0], inputs[2]))


def test_pglr_by_hand():
    # Two parts that predict (0.9, 0.1) and (0.5, 0.5), the first agreeing more, by log 3.
    parts = torch.tensor([[0.9, 0.5], [0.1, 0.5]]).log()[None]
    agreement = torch.tensor([[math.log(3), 0.0]])
    ensemble = 0.75 * 0.9 + 0.25 * 0.5
    target = 0.4 * 0 + 0.6 * ensemble  # of class 0; the pseudo label is class 1
    expected = -target * math.log(0.7) - (1 - target) * math.log(0.3)
    logits = torch.tensor([[0.7, 0.3]]).log()
    loss = pglr_loss(logits, parts, torch.tensor([1]), agreement, beta=0.4)
    assert float(loss) == pytest.approx(expected, rel=1e-6)


def test_triplet_equals_the_authors(arrays):
    embeddings = arrays["embedding"].requires_grad_()
    loss = softmax_triplet_loss(embeddings, arrays["target"])
    assert_equal(loss.detach(), arrays["soft_triplet"])
    loss.backward()
    assert_equal(embeddings.grad, arrays["soft_triplet_grad_embedding"])


def test_refined_labels_are_what_pglr_is_the_cross_entropy_with():
    generator = torch.Generator().manual_seed(0)
    logits, parts = (torch.randn(4, 5, *rest, generator=generator) for rest in ((), (3,)))
    targets, agreement = torch.tensor([0, 4, 2, 2]), torch.rand(4, 3, generator=generator)
    refined = refined_labels(parts, targets, agreement, beta=0.3)
    assert refined.sum(dim=1).tolist() == pytest.approx([1.0] * 4)
    weights = agreement.exp() / agreement.exp().sum(dim=1, keepdim=True)
    by_hand = 0.7 * (parts.softmax(dim=1) * weights[:, None]).sum(dim=2)
    by_hand[torch.arange(4), targets] += 0.3
    assert_equal(refined, by_hand)
    loss = pglr_loss(logits, parts, targets, agreement, beta=0.3)
    assert_equal(loss, -(by_hand * logits.log_softmax(dim=1)).sum(dim=1).mean())


def test_triplet_by_hand():
    # On a line at 0, 1 | 3: (p, n) is (1, 3), (1, 2), and (0, 2) for the one without a partner.
    embeddings = torch.tensor([[0.0], [1.0], [3.0]])
    expected = (softplus(-2) + softplus(-1) + softplus(-2)) / 3
    loss = softmax_triplet_loss(embeddings, torch.tensor([7, 7, 2]))
    assert float(loss) == pytest.approx(expected, rel=1e-6)


def test_triplet_without_negatives_or_with_duplicates_has_finite_gradients():
    for targets in (torch.zeros(4), torch.tensor([0, 0, 1, 1])):
        embeddings = torch.ones(4, 3, requires_grad=True)
        loss = softmax_triplet_loss(embeddings, targets)
        loss.backward()
        assert embeddings.grad.isfinite().all()
        assert loss.item() == pytest.approx(0 if targets.sum() == 0 else math.log(2))


def camera_inputs(arrays):
    names = ("target", "camera", "proxy", "proxy_target", "proxy_camera")
    return [arrays[name] for name in names]


def test_camera_loss_equals_the_authors(arrays):
    embeddings = arrays["embedding"].requires_grad_()
    loss = camera_contrastive_loss(
        embeddings,
        *camera_inputs(arrays),
        temperature=float(arrays["proxy_temperature"]),
        hard_negatives=int(arrays["proxy_hard_negatives"]),
    )
    assert_equal(loss.detach(), arrays["inter_camera"])
    loss.backward()
    assert_equal(embeddings.grad, arrays["inter_camera_grad_embedding"])


CAMERA_CASE = {
    "targets": torch.tensor([0, 1]),
    "cameras": torch.tensor([0, 0]),
    # Cosines with the first image: 0.8 and 0.6 (positives), 1 (own camera), 0, -1 (negatives).
    "proxies": torch.tensor([[0.8, 0.6], [0.6, 0.8], [1.0, 0.0], [0.0, 1.0], [-1.0, 0.0]]),
    "proxy_targets": torch.tensor([0, 0, 0, 1, 2]),
    "proxy_cameras": torch.tensor([1, 2, 0, 0, 0]),
}


@pytest.mark.parametrize(("hard", "negatives"), [(1, [0]), (2, [0, -1]), (50, [0, -1])])
def test_camera_loss_by_hand(hard, negatives):
    # The second image's cluster has no proxy in another camera: it adds 0, but is counted.
    embeddings = torch.tensor([[2.0, 0.0], [0.0, 3.0]])
    loss = camera_contrastive_loss(embeddings, **CAMERA_CASE, temperature=0.5, hard_negatives=hard)
    normalizer = sum(math.exp(cosine / 0.5) for cosine in (0.8, 0.6, *negatives))
    expected = (math.log(normalizer) - (0.8 + 0.6) / 2 / 0.5) / 2
    assert float(loss) == pytest.approx(expected, rel=1e-6)


def test_camera_loss_without_any_positive_is_zero():
    embeddings = torch.tensor([[1.0, 0.0]] * 2, requires_grad=True)
    loss = camera_contrastive_loss(embeddings, **CAMERA_CASE | {"targets": torch.tensor([1, 2])})
    loss.backward()
    assert loss.item() == 0
    assert torch.equal(embeddings.grad, torch.zeros(2, 2))


def test_camera_loss_without_negatives_has_finite_gradients():
    embeddings = torch.tensor([[1.0, 0.0]] * 2, requires_grad=True)
    only = {"proxy_targets": torch.zeros(5), "targets": torch.zeros(2)}
    camera_contrastive_loss(embeddings, **CAMERA_CASE | only).backward()
    assert embeddings.grad.isfinite().all()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: aals_loss(torch.ones(2, 3), torch.zeros(3), torch.ones(2)),
            r"targets must have shape \(2,\), got \(3,\)",
        ),
        (
            lambda: aals_loss(torch.ones(2, 3), torch.zeros(2), torch.ones(2, 3)),
            r"agreement must have shape \(2,\), got \(2, 3\)",
        ),
        (
            lambda: pglr_loss(
                torch.ones(2, 3), torch.ones(2, 4, 3), torch.zeros(2), torch.ones(2, 3)
            ),
            r"logits_part must have shape \(2, 3, 3\), got \(2, 4, 3\)",
        ),
        (
            lambda: pglr_loss(torch.ones(2, 3), torch.ones(2, 3, 1), torch.zeros(2), torch.ones(2)),
            r"agreement must have shape \(2, 1\), got \(2,\)",
        ),
        (
            lambda: pglr_loss(
                torch.ones(2, 3), torch.ones(2, 3, 1), torch.zeros(2), torch.ones(2, 1), beta=1.1
            ),
            r"beta must be in \[0, 1\], got 1.1",
        ),
        (
            lambda: softmax_triplet_loss(torch.ones(2, 3), torch.zeros(3)),
            r"targets must have shape \(2,\), got \(3,\)",
        ),
        (
            lambda: camera_contrastive_loss(torch.ones(3, 2), **CAMERA_CASE),
            r"targets must have shape \(3,\), got \(2,\)",
        ),
        (
            lambda: camera_contrastive_loss(
                torch.ones(2, 2), **CAMERA_CASE | {"proxy_cameras": torch.zeros(4)}
            ),
            r"proxy_cameras must have shape \(5,\), got \(4,\)",
        ),
        (
            lambda: camera_contrastive_loss(torch.ones(2, 2), **CAMERA_CASE, temperature=0),
            "temperature must be above 0, got 0",
        ),
        (
            lambda: camera_contrastive_loss(torch.ones(2, 2), **CAMERA_CASE, hard_negatives=0),
            "hard_negatives must be at least 1, got 0",
        ),
    ],
)
def test_bad_input(call, message):
    with pytest.raises(ValueError, match=message):
        call()
