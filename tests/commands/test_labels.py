from __future__ import annotations

import csv

import pytest
import timm
import torch
import yaml

from pplr_lightning.commands.labels import starting_point, write_labels
from pplr_lightning.data import Market1501
from pplr_lightning.data.datasets import frame_numbers, tracklet_numbers
from pplr_lightning.labelers import DBSCAN, Space, label_grid
from pplr_lightning.labelers.assignment import Assignment

from ..tiny import module


@pytest.fixture
def options(tiny_checkpoint, drawn, tmp_path):
    return [
        f"--weights={tiny_checkpoint}",
        f"--data.root={drawn / 'bounding_box_train'}",
        "--num_workers=0",
        "--k1=[4,8]",
        "--eps=[0.5,0.6]",
        f"--out={tmp_path / 'out'}",
    ]


def test_writes_a_folder(run, options, tmp_path, drawn, capsys):
    grid = run("labels", *options)
    printed = capsys.readouterr().out.splitlines()
    assert len([line for line in printed if line.lstrip().startswith(("4 ", "8 "))]) == 8
    assert f"look at {tmp_path / 'out/labels.html'}" in printed[-1]
    samples = Market1501(drawn).load().train
    vectors = module().embed([sample.path for sample in samples])
    expected = DBSCAN(**grid[0].setting._asdict()).label(Space.of(vectors))
    assert torch.equal(grid[0].classes, expected)
    assert not any("ari" in labels.values for labels in grid)
    with (tmp_path / "out/labels.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["eps"] for row in rows] == ["0.5", "0.5", "0.6", "0.6"] * 2
    assert [row["clusters"] for row in rows] == [str(one.values["clusters"]) for one in grid]
    assert not list(tmp_path.glob("*.part"))


def test_data_set_with_identities(run, options, drawn, tmp_path):
    grid = run("labels", *options, "--data=Market1501", f"--data.root={drawn}")
    assert {"ari", "precision", "recall", "across_cameras"} <= set(grid[0].values)
    assert '<th scope="col">ARI</th>' in (tmp_path / "out/labels.html").read_text()


def test_tracklets_are_labelled_as_fit_does(run, options, drawn, capsys):
    words = ["--data=Market1501", f"--data.root={drawn}", "--data.tracklets=names"]
    grid = run("labels", *options, *words)
    samples = Market1501(drawn, tracklets="names").load().train
    numbers = torch.tensor(tracklet_numbers(samples))
    assert (
        f"labels are of {int(numbers.max()) + 1} tracklets of 96 images" in capsys.readouterr().out
    )
    vectors = module().embed([sample.path for sample in samples])
    space = Space.of(vectors, frames=torch.tensor(frame_numbers(samples)))
    labeler = DBSCAN(**grid[0].setting._asdict())
    assert torch.equal(grid[0].classes, labeler.label(space.of_tracklets(numbers))[numbers])
    assert "median_size" in grid[0].values


def test_candidates_are_configs(drawn, tmp_path):
    samples = Market1501(drawn).load().train
    persons = torch.tensor([sample.person_id for sample in samples])
    features = torch.eye(32)[persons]  # 8 images of 12 people that are clear
    grid = label_grid(Space.of(features), k1=[6, 8], eps=[0.5], min_samples=[2])
    shown = write_labels(tmp_path / "out", samples, grid, title="t", start="s")
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert names == {
        "labels.csv", "labels.html",
        "clusters1.png", "clusters2.png", "candidate1.yaml", "candidate2.yaml",
    }  # fmt: skip
    config = yaml.safe_load((tmp_path / "out/candidate1.yaml").read_text())
    labeler = config["pseudo_labels"]["labeler"]
    assert labeler == {"class_path": "DBSCAN", "init_args": shown[0].setting._asdict()}


def clear(drawn, folder, *, tracked=False, **options):
    """Writes labels of features that are the people's, with what corrections start from."""
    samples = Market1501(drawn, tracklets="names").load().train
    persons = torch.tensor([sample.person_id for sample in samples])
    space = Space.of(torch.eye(32)[persons])
    labelled = space.of_tracklets(torch.tensor(tracklet_numbers(samples))) if tracked else space
    grid = label_grid(labelled, k1=[6], eps=[0.5], min_samples=[2])
    write_labels(
        folder, samples, grid,
        title="t", start="s", space=labelled, root=drawn, **options,
    )  # fmt: skip
    return samples, grid[0].classes


def test_candidates_can_be_corrected(drawn, tmp_path):
    samples, classes = clear(drawn, tmp_path / "out", pairs="some.parquet")
    found = Assignment.read(tmp_path / "out/candidate1.parquet")
    assert [str(found.root / name) for name in found.names] == [one.path for one in samples]
    assert torch.equal(found.classes, classes)
    config = yaml.safe_load((tmp_path / "out/candidate1.yaml").read_text())
    assert config["pseudo_labels"]["pairs"] == "some.parquet"
    assert "--out some.parquet" in (tmp_path / "out/labels.html").read_text()


def test_tracklets_are_corrected_by_a_frame_of_each(drawn, tmp_path):
    samples, classes = clear(drawn, tmp_path / "out", tracked=True)
    found = Assignment.read(tmp_path / "out/candidate1.parquet")
    numbers = tracklet_numbers(samples)
    firsts = [numbers.index(number) for number in range(max(numbers) + 1)]
    assert [str(found.root / name) for name in found.names] == [samples[n].path for n in firsts]
    assert torch.equal(found.classes, classes[firsts])


def test_pairs_are_obeyed(run, options, tmp_path, drawn, capsys):
    names = sorted(path.name for path in (drawn / "bounding_box_train").glob("*.png"))
    pairs = tmp_path / "pairs.csv"
    rows = [f"{names[0]},{names[50]},1", f"{names[0]},{names[1]},0", f"{names[2]},,"]
    pairs.write_text("\n".join(["path_a,path_b,same", *rows]))
    for labels in run("labels", *options, f"--pairs={pairs}"):
        assert labels.classes[0] == labels.classes[50] >= 0
        assert labels.classes[0] != labels.classes[1]
        assert labels.classes[2] == -1
    pairs.write_text("path_a,path_b\n")
    with pytest.raises(SystemExit):
        run("labels", *options, f"--pairs={pairs}", f"--out={tmp_path / 'other'}")
    assert "pairs.csv: has no column same" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        run("labels", *options, "--pairs=gone.csv", f"--out={tmp_path / 'other'}")
    assert "error: --pairs gone.csv: no such table" in capsys.readouterr().err


def test_where_all_are_in_doubt_there_is_no_config(drawn, tmp_path):
    samples = Market1501(drawn).load().train[:16]
    features = torch.eye(2)[torch.arange(16) % 2]
    grid = label_grid(Space.of(features), k1=[8], eps=[0.5], min_samples=[2])
    write_labels(tmp_path / "out", samples, grid, title="t", start="s")
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert names == {"labels.csv", "labels.html", "clusters1.png"}


class TestStartingPoint:
    def test_name_of_a_model(self):
        found = starting_point("test_resnet.r160_in1k", last_stride=2)
        assert found.network.options["backbone"] == "test_resnet.r160_in1k"
        assert found.network.options["weights"] == "pretrained"

    def test_file_of_weights(self, tmp_path):
        torch.manual_seed(0)
        own = timm.create_model("test_resnet", num_classes=0)
        torch.save(own.state_dict(), tmp_path / "w.pth")
        network = starting_point(str(tmp_path / "w.pth"), "test_resnet", last_stride=2).network
        network.load_weights()
        assert torch.equal(network.backbone.conv1[0].weight, own.conv1[0].weight)

    def test_checkpoint(self, tiny_checkpoint):
        assert starting_point(str(tiny_checkpoint)).preprocessing.image_size == (64, 32)


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--eps=[2.0]"], "error: labeler.eps=2.0: a Jaccard distance lies in (0, 1]"),
        (["--weights=gone.pth"], "error: --weights gone.pth: no such file, and no model of timm"),
        (["--data.root=gone"], "error: gone: no such folder; set the data set's root"),
        (["--images_per_person=0"], "error: images_per_person=0.0: a person has one image or more"),
        (["--k1=[]"], "error: no setting is left: give a k1"),
        (["--k1=[1000]"], "error: k1 must not exceed the number of images"),
    ],
)
def test_complaints(run, options, more, message, capsys, tmp_path):
    with pytest.raises(SystemExit):
        run("labels", *options, *more)
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_does_not_write_over_a_folder(run, options, tmp_path, capsys):
    (tmp_path / "out").mkdir()
    with pytest.raises(SystemExit):
        run("labels", *options)
    assert "is there already: name another folder or remove it" in capsys.readouterr().err
