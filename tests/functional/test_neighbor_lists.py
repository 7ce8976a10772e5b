from __future__ import annotations

import numpy as np
import pytest
import torch

from pplr_lightning.functional import neighbor_lists
from pplr_lightning.functional.engines import open_finder
from pplr_lightning.functional.neighbor_lists import add_block, entry_dots, no_lists, pair_dots


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


@pytest.mark.parametrize("size", [1, 7, 100, 1000])
def test_products_of_pairs_on_a_gpu_are_those_of_the_loop(draw_features, monkeypatch, size):
    """To 1e-15; equal pairs have equal products, to the last bit, whichever chunk they are in."""
    features = draw_features(6, 40, dim=33)
    features[20:] = features[:20]
    monkeypatch.setattr(neighbor_lists, "PAIR_BYTES", 8 * 33 * size)
    left, right = torch.randint(40, (2, 100), generator=torch.Generator().manual_seed(0))
    left = left.sort().values
    indptr = np.concatenate([[0], np.cumsum(np.bincount(left, minlength=40))])
    found = pair_dots(features, features, left, right)
    expected = entry_dots(features, features, indptr, right.numpy())
    assert torch.allclose(found, torch.from_numpy(expected), rtol=0, atol=1e-15)
    swapped = pair_dots(features, features, (left + 20) % 40, right)
    assert torch.equal(found, swapped)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_gpu_equals_cpu(draw_features):
    features = draw_features(6, 40, dim=33)
    indptr, columns = np.arange(0, 121, 3), np.tile([1, 5, 9], 40)
    found = entry_dots(features.cuda(), features.cuda(), indptr, columns)
    assert np.allclose(found, entry_dots(features, features, indptr, columns), rtol=0, atol=1e-15)
