from __future__ import annotations

import camera_labels as benchmark
import numpy as np
import pytest
import torch
from camera_labels import Images
from measuring import draw

from pplr_lightning import PPLRModule
from pplr_lightning.networks import PartNetwork


@pytest.fixture
def images():
    drawn = draw(300, 20, 4, 32, noise=0.8)
    return Images(drawn.features, drawn.ids, drawn.cameras)


def test_compares_at_a_share_of_outliers(images):
    for distance in benchmark.DISTANCES.values():
        shares = []
        for wanted in (0.1, 0.4):
            eps, outliers, *quality = benchmark.compare(distance(images), images.ids, wanted)
            assert 0.2 <= eps < 0.8
            assert all(0 <= value <= 1 for value in quality)
            shares.append(outliers)
        assert shares[0] < shares[1]
        assert abs(shares[1] - 0.4) < 0.2


def test_embeds_a_set(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    network = PartNetwork("mobilenetv2_100", weights=None, num_parts=2, last_stride=2)
    module = PPLRModule(network, max_clusters=600)
    torch.save({"state_dict": module.state_dict()}, "start.ckpt")
    found = benchmark.embed(0.3, 2, "start.ckpt", 1)
    assert found.features.shape == (len(found.ids), 1280)
    assert len(found.ids.unique()) == 2
    assert len(found.cameras.unique()) > 1


def test_prints_a_row_for_each_distance(images, monkeypatch, capsys):
    asked = []
    monkeypatch.setattr(benchmark, "embed", lambda *given: asked.append(given) or images)
    benchmark.main(["--shifts", "0.3", "--seeds", "4", "5", "--weights=w.pth"])
    lines = capsys.readouterr().out.splitlines()[2:]
    assert asked == [(0.3, 80, "w.pth", 4), (0.3, 80, "w.pth", 5)]
    assert [line.split(" | ")[1] for line in lines] == [
        "plain, k1 20, k2 4",
        "camera-aware, 3 + 13, 2 + 2",
        "plain, k1 30, k2 6",
        "camera-aware, 5 + 20, 2 + 4",
    ]
    cells = [line.strip("| ").split(" | ")[2:] for line in lines]
    values = np.array(cells, dtype=float)
    assert values.shape == (4, 6)
    assert np.isfinite(values).all()
