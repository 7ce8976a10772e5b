from __future__ import annotations

from itertools import combinations

import pytest
import torch
import tracklets as benchmark

from pplr_lightning.labelers import Space

from ..labelers.people import features


def test_pairs_of_other_tracklets():
    torch.manual_seed(0)
    numbers, classes, persons = torch.randint(0, 4, (3, 30))
    expected = sum(
        classes[i] == classes[j] and persons[i] == persons[j] and numbers[i] != numbers[j]
        for i, j in combinations(range(30), 2)
    )
    assert benchmark.across(numbers, classes, persons) == expected


def test_a_row_counts_what_is_left_out_as_clusters_of_its_own():
    classes, numbers = torch.tensor([0, 0, -1, -1]), torch.tensor([0, 1, 2, 2])
    persons = torch.tensor([3, 3, 4, 4])
    written = benchmark.row(["x"], classes, persons, numbers, numbers)
    assert written == "| x | 0.500 | 1.000 | 1.000 | 1.000 |"
    written = benchmark.row(["x"], classes, persons, numbers, torch.arange(4))
    assert written == "| x | 0.500 | 0.571 | 1.000 | 1.000 |"


def test_prints_a_row_for_each_setting(monkeypatch, capsys):
    space = Space.of(features(each=12, spread=0.3)[0], persons=torch.arange(60) // 12)
    found = (space, torch.arange(60) // 3)
    monkeypatch.setattr(benchmark, "embed", lambda root, weights: found)
    monkeypatch.setattr(benchmark, "IMAGES", benchmark.IMAGES[:1])
    monkeypatch.setattr(benchmark, "TRACKLETS", benchmark.TRACKLETS[:1])
    benchmark.main(["--root=set", "--weights=w.pth", "--eps", "0.5", "0.7"])
    lines = capsys.readouterr().out.splitlines()[2:]
    assert [line.split(" | ")[0] for line in lines] == [
        "| tracklets alone", "| images", "| images", "| tracklets", "| tracklets"
    ]  # fmt: skip
    values = [[float(cell) for cell in line.strip("| ").split(" | ")[5:]] for line in lines]
    assert all(0 <= value <= 1 for row in values for value in row)
    assert values[0][1:] == [pytest.approx(values[0][1]), 0.0, 0.0]


def test_a_drawn_tracker_swaps_walks_that_it_sees_at_once():
    numbers, cameras = torch.arange(240) // 6, torch.arange(240) // 6 % 2
    generator = torch.Generator().manual_seed(0)
    times = benchmark.draw_times(numbers, cameras, 4, generator)
    walks = benchmark.draw_switches(numbers, cameras, times, 0.5, generator)
    mixed = [walk for walk in range(40) if len(numbers[walks == walk].unique()) == 2]
    assert len(mixed) == 20
    for walk in range(40):
        seen = times[walks == walk]
        assert len(seen.unique()) == len(seen)
        assert len(cameras[walks == walk].unique()) == 1
    crowd = [float(((times == t) & (cameras == 0)).sum()) for t in range(int(times.max()))]
    assert 3 < sum(crowd) / len(crowd) < 5


def test_prints_a_row_for_each_way(monkeypatch, capsys):
    people = torch.arange(60) // 12
    space = Space.of(features(each=12)[0], persons=people, cameras=torch.arange(60) // 3 % 2)
    monkeypatch.setattr(benchmark, "embed", lambda root, weights: (space, torch.arange(60) // 3))
    monkeypatch.setattr(benchmark, "TRACKLETS", benchmark.TRACKLETS[:1])
    options = "--root=set --weights=w.pth --eps 0.5 --crowd=2 --switches 0 0.5 --draws=1"
    benchmark.main(options.split())
    rows = [line.strip("| ").split(" | ") for line in capsys.readouterr().out.splitlines()[2:]]
    ways = [(rate, split, link) for rate in ("0.0", "0.5") for split in ("no", "2.25")
            for link in ("no", "yes")]  # fmt: skip
    assert [tuple(row[:3]) for row in rows] == ways
    assert [int(row[7]) > 0 for row in rows] == [False] * 4 + [True] * 2 + [False] * 2
