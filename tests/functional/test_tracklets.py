from __future__ import annotations

import statistics
from itertools import pairwise

import pytest
import torch

from pplr_lightning.functional import split_tracklets


def plain(features, tracklets, frames, factor, window):
    """The same by the definition, frame by frame; the parts of each tracklet in time."""
    walks = []
    for number in sorted(set(tracklets.tolist())):
        rows = (tracklets == number).nonzero()[:, 0].tolist()
        walks.append(sorted(rows, key=lambda row: (int(frames[row]), row)))
    vectors = features.double()
    steps = [
        float((vectors[one] - vectors[other]).square().sum())
        for walk in walks
        for one, other in pairwise(walk)
    ]
    usual = statistics.median_low(steps) / 2

    def part(walk):
        ratios = []
        for gap in range(1, len(walk)):
            before, after = walk[max(0, gap - window) : gap], walk[gap : gap + window]
            n, m = len(before), len(after)
            apart = (vectors[before].mean(0) - vectors[after].mean(0)).square().sum()
            ratios.append(n * m / (n + m) * float(apart) / usual)
        if not ratios or max(ratios) <= factor:
            return [walk]
        cut = ratios.index(max(ratios)) + 1
        return part(walk[:cut]) + part(walk[cut:])

    return [walk for whole in walks for walk in part(whole)]


@pytest.mark.parametrize("seed", range(5))
def test_equals_the_definition(seed, draw_features):
    generator = torch.Generator().manual_seed(seed)
    features = draw_features(seed, 120)
    tracklets = torch.randint(0, 14, (120,), generator=generator)
    tracklets = tracklets.unique(return_inverse=True)[1]
    frames = torch.randint(0, 40, (120,), generator=generator)
    found = split_tracklets(features, tracklets, factor=1.5, frames=frames, window=3)
    walks = plain(features, tracklets, frames, 1.5, 3)
    expected = torch.empty(120, dtype=torch.int64)
    for number, rows in enumerate(walks):
        expected[rows] = number
    assert int(tracklets.max()) + 1 < len(walks) < 100
    assert torch.equal(found, expected)


def test_a_jump_is_found_in_slow_change():
    """People turn in the course of a walk; where one takes another's place, all changes at once."""
    generator = torch.Generator().manual_seed(0)
    angles = torch.cat([torch.linspace(0, 1.5, 60), torch.linspace(0, 1.5, 60)])
    turn = torch.zeros(120, 32)
    turn[:, 0], turn[:, 1] = angles.cos(), angles.sin()
    turn[37:60] = -turn[37:60]  # another from the 38th frame on, in the first of two walks
    noise = torch.randn(120, 32, generator=generator) / 20
    features = torch.nn.functional.normalize(turn + noise, dim=1)
    walks = torch.arange(120) // 60
    found = split_tracklets(features, walks, factor=8)
    assert found.unique(return_counts=True)[1].tolist() == [37, 23, 60]
    assert torch.equal(split_tracklets(features, walks, factor=1e6), walks)
    alone = torch.arange(120)  # nothing follows anything
    assert torch.equal(split_tracklets(features, alone, factor=1), alone)


def test_frames_that_were_doubled_change_nothing():
    """Most steps are then none, and any other would be infinitely more than is usual."""
    angles = 0.05 * torch.randn(12, generator=torch.Generator().manual_seed(0))
    angles[8:] += 1.5
    features = torch.stack([angles.cos(), angles.sin()], dim=1)
    once = split_tracklets(features, torch.zeros(12, dtype=torch.int64), factor=40)
    assert once.tolist() == [0] * 8 + [1] * 4
    thrice = features.repeat_interleave(3, dim=0)
    found = split_tracklets(thrice, torch.zeros(36, dtype=torch.int64), factor=40, window=12)
    assert found.tolist() == [0] * 24 + [1] * 12
    same = features[:1].expand(5, -1)
    assert split_tracklets(same, torch.zeros(5, dtype=torch.int64), factor=1).tolist() == [0] * 5


def test_input_that_does_not_fit(draw_features):
    features = draw_features(0, 12)
    with pytest.raises(ValueError, match=r"tracklets must have shape \(12,\), got \(11,\)"):
        split_tracklets(features, torch.zeros(11, dtype=torch.int64), factor=2)
    with pytest.raises(ValueError, match="factor=0: must be finite and above 0"):
        split_tracklets(features, torch.zeros(12, dtype=torch.int64), factor=0)
    features[3] = torch.nan
    with pytest.raises(ValueError, match="features must be finite"):
        split_tracklets(features, torch.zeros(12, dtype=torch.int64), factor=2)
