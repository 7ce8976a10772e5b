from __future__ import annotations

import corrections as benchmark
import pytest
import torch
from measuring import draw

from pplr_lightning.labelers import DBSCAN, Space


@pytest.fixture(scope="module")
def people():
    """A space of some 40 people, and labels of it that are partly wrong."""
    made = draw(600, 40, 4, 32, noise=1.0)
    space = Space.of(made.features, persons=made.ids)
    return space, DBSCAN(k1=10, k2=3, eps=0.65, min_samples=3).label(space)


@pytest.mark.parametrize("rounds", [False, True])
def test_true_answers_make_better_labels(people, rounds):
    found = benchmark.simulate(*people, [5, 20, 40], "doubt", rounds=rounds)
    assert [one.answers for one in found] == [0, 5, 20, 40]
    assert found[0] == benchmark.measure(*people, 0, 0)
    assert found[0].precision < 0.95
    for name in ("ari", "precision", "clicks"):
        values = [getattr(one, name) for one in found]
        assert values == sorted({*values}), name


def test_answers_come_to_an_end(people):
    space, classes = people
    found = benchmark.simulate(space, classes, [10_000], "random")[-1]
    assert found.answers < 1000
    assert found.precision == pytest.approx(1, abs=0.03)
    other = benchmark.simulate(space, classes, [10], "random", seed=1)[-1]
    assert other != benchmark.simulate(space, classes, [10], "random", seed=0)[-1]


def test_prints_the_table(tmp_path, drawn, capsys):
    torch.save(draw(96, 12, 2, 16, noise=0.5).features, tmp_path / "vectors.pt")
    words = ["--k1=6", "--k2=2", "--min_samples=2", "--answers", "2", "4", "--draws=2"]
    benchmark.main([f"--root={drawn}", f"--features={tmp_path / 'vectors.pt'}", *words])
    rows = [line.split(" | ") for line in capsys.readouterr().out.splitlines()[2:]]
    assert [(row[0], row[1]) for row in rows] == [
        (f"| {order}", number) for order in ("doubt", "random") for number in "024"
    ]
