from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from pplr_lightning.functional import update_prototypes
from pplr_lightning.networks.memory import Memory


@pytest.fixture
def rows():
    torch.manual_seed(0)
    return F.normalize(torch.randn(5, 8), dim=1)


@pytest.mark.parametrize("rule", ["every", "hardest", "mean"])
def test_moves_as_the_function(rows, rule):
    memory = Memory(momentum=0.1, rule=rule)
    memory.reset(rows)
    features, targets = F.normalize(torch.randn(6, 8), dim=1), torch.tensor([1, 1, 0, 4, 0, 1])
    memory.update(features.requires_grad_(), targets)
    expected = update_prototypes(rows, features, targets, momentum=0.1, rule=rule)
    assert torch.equal(memory.rows, expected)
    assert not memory.rows.requires_grad


def test_is_in_the_state_whatever_its_size_and_is_no_buffer(rows):
    memory, other = Memory(momentum=0.1), Memory(momentum=0.1)
    memory.reset(rows)
    other.reset(rows[:2])
    other.load_state_dict(memory.state_dict())
    assert torch.equal(other.rows, rows)
    assert list(memory.buffers()) == []  # which DDP would broadcast in every step


def test_reset_keeps_no_tie_to_what_it_was_given(rows):
    memory = Memory(momentum=0.5)
    memory.reset(rows)
    before = rows.clone()
    rows.zero_()
    assert torch.equal(memory.rows, before)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"momentum": 1.0}, r"momentum=1.0: must lie in \[0, 1\)"),
        ({"momentum": -0.1}, "momentum=-0.1"),
        ({"momentum": 0.1, "rule": "last"}, "rule='last': choose every, hardest or mean"),
    ],
)
def test_bad_options(options, message):
    with pytest.raises(ValueError, match=message):
        Memory(**options)


class TestOfImages:
    """Rows of images, of which those of a class make up its prototype."""

    @pytest.fixture
    def memory(self, rows):
        memory = Memory(momentum=0.2)
        memory.reset(rows)
        memory.classify(torch.tensor([1, 0, 1, -1, 2]))
        return memory

    def test_a_prototype_is_the_mean_of_its_rows(self, memory, rows):
        found = memory.prototypes_for(torch.empty(0, 8, dtype=torch.float64))
        expected = torch.stack([rows[1], (rows[0] + rows[2]) / 2, rows[4]])
        torch.testing.assert_close(found, expected.double())

    def test_follows_its_images(self, memory, rows):
        unit = F.normalize(torch.randn(1, 8), dim=1)
        memory.update(unit, torch.tensor([2]))
        moved = F.normalize(0.2 * rows[2] + 0.8 * unit[0], dim=0)
        torch.testing.assert_close(memory.prototypes_for(unit)[1], (rows[0] + moved) / 2)

    def test_classes_are_in_the_state(self, memory, rows):
        other = Memory(momentum=0.2)
        other.load_state_dict(memory.state_dict())
        assert torch.equal(other.prototypes_for(rows), memory.prototypes_for(rows))
        other.reset(rows)  # rows of classes again
        assert torch.equal(other.prototypes_for(rows), rows)
        memory.load_state_dict(other.state_dict())
        assert torch.equal(memory.prototypes_for(rows), rows)
