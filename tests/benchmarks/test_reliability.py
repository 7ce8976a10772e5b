from __future__ import annotations

import pytest
import reliability as benchmark
import torch
from torch.nn.functional import normalize

from ..tiny import module, save


@pytest.fixture
def spaces():
    """Five people of ten images in a space that tells them apart, and in one that does not."""
    generator = torch.Generator().manual_seed(0)
    people = torch.eye(5).repeat_interleave(10, dim=0)
    noise = 0.1 * torch.randn(50, 5, generator=generator)
    blind = torch.randn(50, 5, generator=generator)
    return {
        "global": normalize(people + noise, dim=1),
        "part 1": normalize(people - noise, dim=1),
        "part 2": normalize(blind, dim=1),
    }


def cells(printed: str, name: str) -> list[float]:
    """The numbers of the table row of that name."""
    (row,) = (line for line in printed.splitlines() if line.startswith(f"| {name} |"))
    return [float(cell) for cell in row.split("|")[2:-1]]


def test_cluster_agreement_looks_as_far_as_the_cluster_reaches():
    classes = torch.tensor([0, 0, 0, 1, 1, -1, 2])
    lists = [[0, 3, 1, 2], [1, 0, 2, 3], [2, 3, 4, 0], [3, 4, 0, 1], [4, 5, 3, 0]]
    lists += [[5, 4, 3, 0], [6, 5, 4, 3]]  # in no cluster, and alone in one
    found = benchmark.cluster_agreement(torch.tensor(lists), classes)
    assert found.tolist() == [0.5, 1, 0, 1, 0, 0, 0]
    # of larger clusters than the lists as many as there are
    found = benchmark.cluster_agreement(torch.tensor(lists)[:, :2], classes)
    assert found.tolist() == [0, 1, 0, 1, 0, 0, 0]


def test_tells_what_follows_the_truth(spaces, capsys):
    persons = torch.arange(50) // 10
    classes = persons.clone()
    classes[[0, 10, 20]] = torch.tensor([1, 2, 3])  # wrong
    classes[49] = -1
    benchmark.compare(spaces, classes, persons)
    printed = capsys.readouterr().out
    assert printed.startswith("5 clusters, 2 % outliers, ARI 0.8")
    assert "93.9 % of the labels right" in printed
    for name in ("global", "part 1"):
        assert cells(printed, f"cluster agreement, {name}")[1] == 1
        right, righted, wronged = cells(printed, f"the nearest mean, {name}")
        assert (right, righted, wronged) == (100, 6.1, 0)
    assert cells(printed, "silhouette")[1] == 1
    assert cells(printed, "the nearest mean, part 2")[2] > 20


def test_runs_from_a_checkpoint(drawn, tmp_path, capsys):
    path = save(module(), tmp_path / "last.ckpt")
    benchmark.main([f"--root={drawn}", f"--ckpt_path={path}", "--k1=8", "--k2=3", "--eps=0.5"])
    printed = capsys.readouterr().out
    assert all(0 <= share <= 100 for share in cells(printed, "10 neighbours, part 2"))
