from __future__ import annotations

import sys

import pytest
import torch

import evaluation as benchmark

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="memory is read from /proc")


def test_prints_a_table_of_equal_metrics(capsys):
    threads = torch.get_num_threads()
    benchmark.main(["--queries=20", "--gallery=80", "--ids=5", "--dim=16", f"--threads={threads}"])
    printed = capsys.readouterr().out
    assert printed.startswith("20 queries, 80 gallery images of 16 features, 5 identities")
    rows = [line.strip("| ").split(" | ") for line in printed.splitlines() if line[:1] == "|"][2:]
    assert [row[0] for row in rows] == [
        "dense, distances given",
        "retrieval_metrics",
        "dense, with the distances",
        "ReIDRetrieval",
        "of these the distances alone",
    ]
    assert max(float(row[4]) for row in rows) <= 1e-9
    assert "ReIDRetrieval with the re-ranked gallery, too: " in printed
