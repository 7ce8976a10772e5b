from __future__ import annotations

import sys

import dense_labels
import labels as benchmark
import numpy as np
import pytest
import torch
import torch.distributed as dist
from measuring import draw

from pplr_lightning.functional import dbscan, jaccard, jaccard_distance, nearest_neighbors
from pplr_lightning.functional.sharding import Share
from pplr_lightning.labelers import DBSCAN, Space

from ..processes import SERVER, launch

SIZE = ["--images=300", "--dim=16", "--parts=2", "--k1=20", "--agreement_k=10"]

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="memory is read from /proc")


def rows(printed: str) -> list[list[str]]:
    lines = [line for line in printed.splitlines() if line.startswith("| ")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[1:]]


def test_prints_equal_labels_beside_the_dense_version(capsys):
    benchmark.main([*SIZE, f"--threads={torch.get_num_threads()}"])
    table = {row[0]: row for row in rows(capsys.readouterr().out)}
    assert list(table) == ["Jaccard distance", "DBSCAN", "both", "agreement"]
    assert table["both"][-1] == table["agreement"][-1] == "yes"
    assert float(table["both"][1]) > 0


def spawn(work, args, nprocs):
    """Does as `torch.multiprocessing.spawn`, without the imports."""
    ranks = [SERVER.Process(target=work, args=(rank, *args)) for rank in range(nprocs)]
    for rank in ranks:
        rank.start()
    for rank in ranks:
        rank.join()
        assert rank.exitcode == 0


def test_prints_each_rank(capsys, monkeypatch):
    monkeypatch.setattr(benchmark.mp, "spawn", spawn)
    benchmark.main([*SIZE, "--threads=1", "--ranks=2", "--camera_jaccard"])
    printed = capsys.readouterr().out
    alone, two = rows(printed)
    assert (alone[0], two[0]) == ("1", "2")
    assert float(alone[-1]) == 0
    assert all(float(received) >= 0 for received in two[-1].split())
    assert len(two[-1].split()) == 2
    assert "labels equal on all ranks and numbers of ranks: yes" in printed


def case(seed: int) -> tuple[torch.Tensor, int, int]:
    """Draws features of 100 to 4,000 images, some with duplicates, and k1 and k2."""
    choice = np.random.default_rng(seed)
    images, k1, k2 = (int(choice.integers(*span)) for span in ((100, 4001), (20, 31), (1, 7)))
    noise, duplicates = float(choice.uniform(0.4, 1.2)), int(choice.choice([0, 3, 20]))
    features = draw(images, max(2, images // 15), 6, 32, noise=noise, seed=seed).features
    features[images - duplicates :] = features[:duplicates]
    return features, k1, k2


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(50))
def test_labels_equal_the_dense_version(seed, monkeypatch):
    features, k1, k2 = case(seed)
    neighbors = nearest_neighbors(features, k1)
    dense = dense_labels.jaccard(features, neighbors.numpy(), k1, k2)
    for eps in (0.5, 0.43):  # on the tie of k2 = 6, and off it
        expected = dense_labels.dbscan(dense, eps, 4)
        for chunk, typed in ((1024, features), (77, features.double())):
            monkeypatch.setattr(jaccard, "CHUNK", chunk)
            distance = jaccard_distance(typed, k1=k1, k2=k2, neighbors=neighbors, max_distance=eps)
            assert np.array_equal(dbscan(distance, eps=eps).numpy(), expected)


def label_cases(rank):
    torch.set_num_threads(1)
    found = []
    for seed in range(50):
        features, k1, k2 = case(seed)
        group = dist.group.WORLD if dist.is_initialized() else None
        world = dist.get_world_size() if dist.is_initialized() else 1
        own = torch.arange(len(features)).tensor_split(world)[rank]
        rows = features[own], features[own][:, :, None]
        space = Space(lambda rows=rows: rows, share=Share(len(own), group))
        found.append(benchmark.begin_epoch(DBSCAN(k1=k1, k2=k2), space, 10))
    return found


@pytest.mark.slow
@pytest.mark.parametrize("world_size", [2, 4])
def test_labels_do_not_depend_on_the_number_of_ranks(world_size, tmp_path):
    alone = label_cases(0)
    for found in launch(label_cases, world_size, tmp_path, timeout=600):
        assert all(torch.equal(a, b) for a, b in zip(found, alone, strict=True))
