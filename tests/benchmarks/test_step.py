from __future__ import annotations

import step as benchmark


def test_prints_tables_of_equal_losses(capsys):
    size = ["--batch=8", "--group=4", "--image_size", "64", "32", "--steps=5"]
    benchmark.main(["--device=cpu", "--backbone=test_resnet", *size, "--no-compile"])
    printed = capsys.readouterr().out
    tables = [block.splitlines()[2:] for block in printed.split("\n\n")[1:]]
    steps, norms, losses = ([line.strip("| ").split(" | ") for line in t] for t in tables)
    assert [row[0] for row in steps] == [
        name for name, chosen in benchmark.ROWS.items() if not chosen.get("compile")
    ]
    assert all(float(row[5]) <= (0.1 if "bf16" in row[0] else 2e-3) for row in steps)
    assert len(norms) == 8
    assert all(float(row[-1]) < 1e-5 for row in norms)
    assert float(losses[0][-1]) < 1e-6
