from __future__ import annotations

import json
import statistics
from types import SimpleNamespace

import pytest
from PIL import Image

from pplr_lightning.commands.training import PPLRCLI
from pplr_lightning.data import ReIDDataset, VIPeR


@pytest.fixture
def viper(drawn, tmp_path, monkeypatch):
    """Two images of each person of the drawn set, in VIPeR's layout; two splits."""
    monkeypatch.setattr(VIPeR, "num_splits", 2)
    people = {}
    for image in sorted((drawn / "bounding_box_train").iterdir()):
        person, camera = image.name.split("_")[:2]
        if person != "-1":
            people.setdefault(person, {}).setdefault(camera[:2], image)
    for person, images in people.items():
        for folder, image in zip(("cam_a", "cam_b"), images.values(), strict=False):
            path = tmp_path / f"VIPeR/{folder}/{person}_0.bmp"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.open(image).save(path)
    return tmp_path / "VIPeR"


@pytest.mark.filterwarnings("ignore:.*as published has")
def test_mean_and_deviation(run, run_args, viper, tmp_path, capsys):
    dataset = ["--data.dataset=VIPeR", f"--data.dataset.root={viper}"]
    run("test", *run_args, *dataset, "--data.dataset.split=all")
    out = capsys.readouterr().out
    found = json.loads((tmp_path / "demo/version_0/splits.json").read_text())
    values = [row["mAP"] for row in found["splits"]]
    assert len(set(values)) == 2
    assert found["mean"]["mAP"] == pytest.approx(statistics.mean(values))
    assert found["deviation"]["mAP"] == pytest.approx(statistics.stdev(values))
    printed = " ".join(out.replace("│", " ").split())
    assert f"mean of 2 splits {100 * found['mean']['mAP']:.1f}" in printed
    assert "split 1 of 2, counted from 0" in printed
    assert printed.rstrip().endswith("no re-ranking; all 2 splits")
    assert (found["features"], found["reranking"], found["protocol"]) == (
        "global",
        None,
        "standard",
    )
    assert (found["tracklets"], found["variant"]) == (None, "all 2 splits")
    run("test", *run_args, *dataset, "--data.dataset.split=1")
    one = " ".join(capsys.readouterr().out.replace("│", " ").split())
    assert f"test {100 * values[1]:.1f}" in one


def test_split_of_another_data_set_is_its_own_matter():
    class Own(ReIDDataset):
        split = "all"

    tested = []
    trainer = SimpleNamespace(test=lambda **options: tested.append(options))
    cli = SimpleNamespace(datamodule=SimpleNamespace(dataset=Own()), trainer=trainer)
    PPLRCLI.test(cli, verbose=False)
    assert tested == [{"verbose": False}]
