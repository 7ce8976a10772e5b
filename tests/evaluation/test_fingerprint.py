from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch

from pplr_lightning.data.transforms import Preprocessing
from pplr_lightning.evaluation.fingerprint import Fingerprint, checksum
from pplr_lightning.networks import PartNetwork

from ..tiny import RECIPE, module


class TestFingerprint:
    def test_survives_a_line(self):
        assert Fingerprint.from_json(RECIPE.to_json()) == RECIPE

    @pytest.mark.parametrize(
        "line",
        [
            "", "[]", "{}", RECIPE.to_json().replace("global", "some"),
            *(json.dumps({**json.loads(RECIPE.to_json()), name: value})
              for name in ("mean", "std") for value in ([], {}, [1, 2], ["x", 1, 2], None)),
        ],
    )  # fmt: skip
    def test_another_line(self, line):
        with pytest.raises(ValueError, match="not the record of a model"):
            Fingerprint.from_json(line)

    @pytest.mark.parametrize(
        ("other", "words"),
        [
            (RECIPE, ""),
            (replace(RECIPE, weights="f" * 64), "another model (weights ffffffffffff, here 0123"),
            (replace(RECIPE, features="both"), "other features (both, here global)"),
            (
                replace(RECIPE, preprocessing=Preprocessing((96, 32))),
                "another image_size ([96, 32], here [64, 32])",
            ),
            (
                replace(RECIPE, preprocessing=Preprocessing((64, 32), std=(1, 1, 1))),
                "another std ([1, 1, 1], here",
            ),
        ],
    )
    def test_difference(self, other, words):
        assert RECIPE.difference(other).startswith(words)
        assert bool(RECIPE.difference(other)) == bool(words)


def test_is_of_what_features_depend_on():
    made = module()
    first = made.fingerprint()
    made.reset_classifiers(torch.randn(3, 96), torch.randn(3, 96, 2))
    assert made.fingerprint() == first
    made.network.part_necks[1].running_mean[0] += 1e-3
    assert made.fingerprint().difference(first).startswith("another model (weights ")
    assert made.fingerprint().weights == checksum(made.network)


def test_is_of_the_weights_to_start_from(tmp_path):
    """Those that the first image would be embedded with."""
    made = module()
    torch.save({"state_dict": made.state_dict()}, tmp_path / "own.ckpt")
    options = {**made.network.options, "weights": str(tmp_path / "own.ckpt")}
    assert checksum(PartNetwork(**options)) == checksum(made.network)
