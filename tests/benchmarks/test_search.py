from __future__ import annotations

import sys

import numpy as np
import pytest
import search as benchmark
import torch

pytest.importorskip("faiss")
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="memory is read from /proc")


def test_prints_a_row_of_each_kind(capsys, tmp_path):
    threads = torch.get_num_threads()
    benchmark.main(
        ["--images=10000", "--dimensions=8", "--queries=50", f"--threads={threads}",
         f"--folder={tmp_path}"]
    )  # fmt: skip
    printed = capsys.readouterr().out
    assert printed.startswith("10,000 vectors of 8 dimensions (0.00 GiB), 50 queries")
    rows = [line.strip("| ").split(" | ") for line in printed.splitlines() if line[:1] == "|"][2:]
    assert [row[0] for row in rows] == ["flat", "ivfsq", "ivfpq"]
    recall = [float(row[6]) for row in rows]
    assert recall[0] == 1
    assert 0.2 < recall[2] < recall[1] < 1
    assert not list(tmp_path.iterdir())


def test_vectors_are_clustered_and_the_same_again():
    draw = benchmark.Drawing(persons=5, dimensions=64, seed=0)
    vectors = draw(20, start=0)
    assert np.allclose(np.linalg.norm(vectors, axis=1), 1)
    assert np.array_equal(vectors, draw(20, start=0))
    similarity = vectors @ draw(20, start=100).T
    person = np.arange(20) % 5
    same = person[:, None] == person
    assert similarity[same].mean() > similarity[~same].mean() + 0.3


def test_recall():
    exact = torch.tensor([[1, 2], [3, 4]])
    assert benchmark.recall_of(torch.tensor([[2, 1], [4, 9]]), exact) == 0.75
