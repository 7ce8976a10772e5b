from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from pplr_lightning.data.transforms import Preprocessing
from pplr_lightning.recipe import Recipe, checksum

from .tiny import RECIPE, module


class TestRecipe:
    def test_survives_a_line(self):
        assert Recipe.from_json(RECIPE.to_json()) == RECIPE

    @pytest.mark.parametrize("line", ["", "[]", "{}", RECIPE.to_json().replace("global", "some")])
    def test_another_line(self, line):
        with pytest.raises(ValueError, match="not the record of a model"):
            Recipe.from_json(line)

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


def test_checksum_is_of_what_features_depend_on():
    model = module().model
    first = checksum(model)
    model.reset_classifiers(torch.randn(3, 96), torch.randn(3, 96, 2))
    assert checksum(model) == first
    model.part_heads[1].neck.running_mean[0] += 1e-3
    assert checksum(model) != first
