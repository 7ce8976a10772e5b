from __future__ import annotations

import input as benchmark


def test_prints_a_row_for_each_kind_of_batch(capsys):
    rows = benchmark.main(["--images=32", "--batches=1", "--repeats=1", "--size", "64", "32"])
    assert [row.views for row in rows] == ["training", "evaluation"]
    assert all(row.host > row.cached > row.files > 0 for row in rows)
    assert all(row.difference == 0 for row in rows)
    lines = capsys.readouterr().out.strip().splitlines()
    assert len(lines) == 4
    assert lines[2].startswith("| 64 x 32 | training |")
