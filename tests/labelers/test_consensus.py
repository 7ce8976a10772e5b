from __future__ import annotations

import copy

import pytest
import torch

from pplr_lightning import functional as F
from pplr_lightning.labelers import Consensus, Space

from ..methods.small_runs import read


@pytest.mark.parametrize("name", ["rlcc_generations", "rlcc_generations_mixed"])
def test_labels_over_epochs_are_those_of_the_authors(name):
    arrays = read(name)
    options = {key: float(arrays[key]) for key in ("alpha", "beta")}
    consensus = Consensus(scale=float(arrays["pred_temp"]), **options)
    for epoch in range(4):
        classes, space = arrays[f"labels_{epoch}"], Space.of(arrays[f"features_{epoch}"])
        columns = consensus.refine(space, classes)
        if epoch == 0:
            assert columns == {}
            continue
        hard = torch.nn.functional.one_hot(classes).double()
        alpha = options["alpha"]
        expected = alpha * hard + (1 - alpha) * arrays[f"soft_{epoch}"]
        torch.testing.assert_close(columns["soft_labels"], expected, rtol=1e-12, atol=1e-12)


def test_every_trained_image_has_a_distribution():
    """Whatever clusters are gone; an image without a cluster now has none that is used."""
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(60, 8, generator=generator)
    space = Space.of(torch.nn.functional.normalize(features, dim=1))
    consensus = Consensus(alpha=0.5)
    before, now = torch.randint(-1, 6, (2, 60), generator=generator)
    now[before == 3] = -1
    consensus.refine(space, before)
    soft = consensus.refine(space, now)["soft_labels"]
    assert soft.shape == (60, 6)
    clustered = now >= 0
    torch.testing.assert_close(soft[clustered].sum(1), torch.ones(int(clustered.sum())))
    assert (soft[clustered].gather(1, now[clustered, None]) >= 0.5).all()


def test_goes_on_from_its_state():
    space, classes = Space.of(torch.eye(4)), torch.tensor([0, 0, 1, 1])
    consensus, other = Consensus(), Consensus()
    consensus.refine(space, classes)
    other.load_state_dict(copy.deepcopy(consensus.state_dict()))
    columns = [one.refine(space, 1 - classes)["soft_labels"] for one in (consensus, other)]
    assert torch.equal(*columns)


def test_soft_labels_of_a_class_are_its_loss():
    """Losses take a distribution as they take classes."""
    rows, targets = torch.randn(6, 5), torch.arange(6) % 4
    hard = torch.nn.functional.one_hot(targets, 4).float()
    prototypes, agreement = torch.randn(4, 5), torch.rand(6, 2)
    for floor in (0.0, 1e-6):
        options = {"temperature": 0.5, "floor": floor}
        expected = F.prototype_loss(rows, prototypes, targets, **options)
        torch.testing.assert_close(F.prototype_loss(rows, prototypes, hard, **options), expected)
    logits, parts = rows @ prototypes.T, torch.randn(6, 4, 2)
    expected = F.aals_loss(logits, targets, agreement[:, 0])
    torch.testing.assert_close(F.aals_loss(logits, hard, agreement[:, 0]), expected)
    expected = F.pglr_loss(logits, parts, targets, agreement)
    torch.testing.assert_close(F.pglr_loss(logits, parts, hard, agreement), expected)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"alpha": 1.1}, "refinement.alpha=1.1"),
        ({"beta": -0.1}, "refinement.beta=-0.1"),
        ({"scale": 0.0}, "refinement.scale=0.0"),
    ],
)
def test_bad_options(options, message):
    with pytest.raises(ValueError, match=message):
        Consensus(**options)
