from __future__ import annotations

import pytest
import torch

from pplr_lightning.callbacks.loss_means import LossMeans

from ..processes import launch


def losses(*values):
    return {f"train/{number}": torch.tensor(value) for number, value in enumerate(values)}


def test_means_over_the_steps():
    row = {"epoch": 2.0}
    means = LossMeans(row)
    means.settle(row)
    assert row == {"epoch": 2.0}  # nothing yet
    means.add(losses(1.0, 4.0))
    means.add(losses(2.0, 8.0))
    means.settle(row)
    means.settle(row)  # as often as the run is saved
    assert means.epoch == 2
    assert means.iterations == 2
    assert row == {"epoch": 2.0, "train/0": 1.5, "train/1": 6.0}


def test_goes_on_with_an_epoch_that_was_broken_off():
    row = {"epoch": 0.0, "iterations": 3.0, "train/0": 2.0}
    means = LossMeans(row)
    means.add(losses(6.0))
    means.settle(row)
    assert means.iterations == 4
    assert row["train/0"] == pytest.approx(3.0)


def test_adds_half_precision_up_in_full():
    row = {"epoch": 0.0}
    means = LossMeans(row)
    for _ in range(300):
        means.add({"train/0": torch.tensor(1.0, dtype=torch.bfloat16)})
    means.settle(row)
    assert row["train/0"] == 1.0


def _add(rank):
    row = {"epoch": 0.0}
    means = LossMeans(row)
    means.add(losses(1.0 + rank))
    means.settle(row)
    return row


def test_every_rank_has_the_mean_over_all(tmp_path):
    assert launch(_add, 2, tmp_path) == [{"epoch": 0.0, "train/0": 1.5}] * 2
