from __future__ import annotations

import pytest

pytest.importorskip("faiss")
import neighbors as benchmark


def test_exact_finds_all_and_graphs_most(capsys):
    benchmark.main(["--images=2000", "--dim=16", "-k=10", "--sample=100", "--threads=1"])
    printed = capsys.readouterr().out
    assert printed.startswith("2,000 images of 16 dimensions, noise 0.5, 10 neighbours, 1 threads")
    rows = [line.strip("| ").split(" | ") for line in printed.splitlines() if line[:1] == "|"][2:]
    names = [row[0].split(",")[0] for row in rows]
    assert names == ["exact", "inverted file", "graph", "graph"]
    recalls = [float(row[2]) for row in rows]
    assert recalls[0] == 1
    assert all(0.5 < recall <= 1 for recall in recalls[1:])
    assert float(rows[3][1]) > 0
