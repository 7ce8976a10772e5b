from __future__ import annotations

import numpy as np
import torch

from pplr_lightning.functional.engines import open_finder
from pplr_lightning.functional.neighbor_lists import add_block, entry_dots, no_lists


def test_blocks_in_any_order_give_the_same_lists(draw_features):
    features = draw_features(0, 90, duplicates=10)
    queries, lists = features[:20], []
    places = torch.arange(90)
    for order in (
        (places,),
        (places[60:], places[:25], places[25:60]),
        (places[::2], places[1::2]),
    ):
        found = no_lists(20)
        for part in order:
            block = features[part].contiguous()
            found = add_block(found, queries, block, part, 7, open_finder("torch", block))
        lists.append(found)
    indices, similarity = lists[0]
    assert indices.shape == (20, 7)
    assert (similarity.diff(dim=1) <= 0).all()
    for other in lists[1:]:
        assert torch.equal(other[0], indices)
        assert torch.equal(other[1], similarity)


def test_a_small_block_gives_short_lists(draw_features):
    features = draw_features(1, 30)
    block = features[:3].contiguous()
    find = open_finder("torch", block)
    found = add_block(no_lists(30), features, block, torch.tensor([4, 8, 9]), 5, find)
    assert found[0].shape == (30, 3)
    assert set(found[0].unique().tolist()) == {4, 8, 9}


def test_dots_of_equal_pairs_are_equal_to_the_last_bit(draw_features):
    features = draw_features(2, 40, dim=33)
    features[20:] = features[:20].clone()
    indptr, columns = np.array([0, *[4] * 39, 6]), np.array([5, 25, 7, 27, 1, 21])
    dots = entry_dots(features, features, indptr, columns)
    assert dots.dtype == np.float64
    assert dots[0] == dots[1]
    assert dots[2] == dots[3]
    assert dots[4] == dots[5]
    expected = (features[0].double() @ features[5].double()).item()
    np.testing.assert_allclose(dots[0], expected, rtol=1e-14)
