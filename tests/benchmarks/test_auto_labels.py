from __future__ import annotations

from functools import partial

import auto_labels as benchmark
import pytest
from measuring import draw

from pplr_lightning.labelers import Space


@pytest.fixture
def space():
    drawn = draw(240, 20, 4, 32, noise=0.8)
    return Space.of(drawn.features, persons=drawn.ids, cameras=drawn.cameras)


def test_prints_a_row_for_each_set_and_start(space, monkeypatch, capsys, tmp_path):
    asked = []
    monkeypatch.setattr(benchmark, "embed", lambda *given: asked.append(given) or space)
    monkeypatch.setattr(benchmark, "SIZES", ((12, 20),))
    few = partial(benchmark.label_grid, k1=[10, 30], eps=[0.5, 0.6])
    monkeypatch.setattr(benchmark, "label_grid", few)
    row = benchmark.compare(space)
    monkeypatch.setattr(benchmark, "compare", lambda _: row)
    benchmark.main(["--weights=w.pth", "--shifts", "0.3", f"--market={tmp_path}"])
    table, means = capsys.readouterr().out.split("\n\n")
    lines = table.splitlines()[2:]
    assert [weights for _, weights in asked] == ["w.pth", None] * 2
    assert [line.split(" | ")[0] for line in lines] == ["| drawn, 0.3"] * 2 + ["| rendered"] * 2
    cells = lines[0].strip("| ").split(" | ")
    assert len(cells) == len(benchmark.COLUMNS)
    best, auto = float(cells[5]), float(cells[7])
    assert 0 < auto <= best <= 1
    assert cells[8] == f"{row['auto'].values['ari'] / row['best'].values['ari']:.0%}"
    assert "| auto |" in means


def test_embeds_a_set(tmp_path):
    options = benchmark.parse(["--weights=w", "--shifts", "0.3", f"--folder={tmp_path}"])
    dataset = next(iter(benchmark.sets(options)))[1]
    dataset.train_identities = 2
    found = benchmark.embed(dataset, None)
    assert found.features.shape == (found.total, 1280)
    assert benchmark.images_per_person(found) == found.total / 2
