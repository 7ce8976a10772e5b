from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from pplr_lightning.report.reading import read_run

from .conftest import epoch, evaluated, history, options
from .test_bounded_yaml import BOMB


def test_reads_what_a_run_left(make_folder):
    run = read_run(make_folder(figures=("ranking-epoch2.png",)))
    assert run.name == "demo/version_0"
    assert run.rows == history()
    assert run.finished == 3
    assert [row["epoch"] for row in run.evaluations] == [-1, 1, 2]
    assert [row["epoch"] for row in run.labelings] == [0, 1, 2]
    assert run.option("pseudo_labels.labeler.eps") == 0.45
    assert run.option("pseudo_labels.labeler.init_args.eps") == 0.45
    assert run.option("pseudo_labels.labeler.eps.more") is run.option("nothing.at.all") is None
    assert run.kind("pseudo_labels.labeler") == "DBSCAN"
    assert run.kind("pseudo_labels") == run.kind("data.batch_size") == ""
    assert run.environment["versions"] == {"torch": "2.4.0"}
    assert run.notes == []


@pytest.mark.parametrize("labeler", ["Identities", "Instances"])
def test_labels_that_are_known_before_are_left_out(make_folder, labeler):
    path = f"pplr_lightning.labelers.{labeler}"
    run = read_run(make_folder(config=options(pseudo_labels__labeler=path)))
    assert run.labelings == []
    assert not any(name.startswith("labels/") for row in run.rows for name in row)
    assert [row["train/loss"] for row in run.epochs] == [6, 5, 4]


def test_counts_finished_epochs_only(make_folder):
    rows = [epoch(0), {"epoch": 1.0, "train/loss": 2.0}]
    assert read_run(make_folder(rows=rows)).finished == 1
    assert read_run(make_folder("demo/none", rows=[])).finished == 0


class TestLog:
    """Of a run without `history.csv`."""

    @pytest.fixture
    def folder(self, make_folder):
        folder = make_folder()
        (folder / "history.csv").unlink()
        return folder

    def test_takes_the_metrics(self, folder):
        (folder / "metrics.csv").write_text(
            "epoch,labels/clusters,step,train/loss\n0,,0,6\n0,70,1,4\n1,,2,3\n"
        )
        run = read_run(folder)
        assert [row["train/loss"] for row in run.epochs] == [5, 3]
        assert run.finished == 1  # the labels are logged at an epoch's end
        assert run.notes == []

    def test_without_labels_every_epoch_counts(self, folder):
        (folder / "metrics.csv").write_text("epoch,step,train/loss\n0,0,6\n1,2,3\n")
        assert read_run(folder).finished == 2

    def test_takes_the_evaluations_of_all_parts_from_the_summary(self, folder):
        (folder / "metrics.csv").write_text("epoch,step,train/loss\n4,0,6\n")
        evaluations = [{"epoch": -1, "mAP": 0.2}, {"epoch": 4, "mAP": 0.5}, "broken", {"mAP": 1}]
        (folder / "summary.json").write_text(json.dumps({"history": evaluations}))
        run = read_run(folder)
        assert [(row["epoch"], row["val/mAP"]) for row in run.evaluations] == [(-1, 0.2), (4, 0.5)]
        assert run.notes == ["The log begins at epoch 4: what came before is in another folder."]

    @pytest.mark.parametrize("history", [5, {"epoch": 1}, "words", True])
    def test_a_summary_whose_history_is_no_list(self, folder, history):
        (folder / "summary.json").write_text(json.dumps({"history": history}))
        run = read_run(folder)
        assert run.rows == []
        assert "summary.json: its history is no list and was left out." in run.notes

    def test_evaluations_that_cannot_be(self, folder):
        good, late = {"epoch": 1, "mAP": 0.5}, {"epoch": 1e300, "mAP": 0.5}
        absurd = [late, {"epoch": 10**400}, {"epoch": 2, "mAP": 1e308}, {"epoch": float("inf")}]
        (folder / "summary.json").write_text(json.dumps({"history": [*absurd, good]}))
        assert [row["epoch"] for row in read_run(folder).evaluations] == [1]

    def test_without_any(self, folder):
        run = read_run(folder)
        assert run.rows == []
        assert "neither history.csv nor metrics.csv" in run.notes[0]


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("summary.json", "{"),
        ("summary.json", "[1]"),
        ("summary.json", 100_000 * "["),
        ("environment.json", "\0"),
        ("config.yaml", "a: [1"),
        ("config.yaml", "a: !!python/object:os.system {}"),
        ("config.yaml", "just words"),
        ("figures/captions.json", "{"),
    ],
)
def test_a_broken_file_is_named_and_left_out(make_folder, file, text):
    folder = make_folder()
    (folder / file).write_text(text)
    run = read_run(folder)
    assert f"{file.split('/')[-1]} is not readable and was left out." in run.notes
    assert run.rows == history()


def test_without_config(make_folder):
    run = read_run(make_folder(config=None))
    assert run.config == {}
    assert run.notes == ["There is no config.yaml, so the options of this run are not known."]


class TestFigures:
    def test_the_newest_of_each(self, make_folder):
        folder = make_folder(
            figures=(
                "clusters-epoch2.png", "clusters-epoch10.png", "embedding-epoch0.png",
                "embedding-epoch4.png", "embedding-epoch10.png", "ranking-epoch-1.png",
                "label_quality-epoch10.png", "else.png", "other-epoch1.png",
            )
        )  # fmt: skip
        captions = {"clusters-epoch10.png": "The largest.", "else.png": "Nothing."}
        (folder / "figures/captions.json").write_text(json.dumps(captions))
        figures = read_run(folder).figures
        assert [(figure.name, figure.epoch) for figure in figures] == [
            ("ranking", -1), ("clusters", 10), ("embedding", 10), ("label_quality", 10),
            ("other", 1),
        ]  # fmt: skip
        assert figures[1].caption == "The largest."
        assert figures[0].caption == ""
        assert figures[0].source.startswith("data:image/png;base64,iVBORw0KGgo")

    def test_a_folder_of_its_name(self, make_folder):
        folder = make_folder(figures=("ranking-epoch1.png",))
        (folder / "figures/clusters-epoch1.png").mkdir()
        run = read_run(folder)
        assert [figure.name for figure in run.figures] == ["ranking"]
        assert run.notes == ["clusters-epoch1.png is not readable and was left out."]


class TestNoRun:
    def test_no_folder(self, tmp_path):
        with pytest.raises(FileNotFoundError, match=r"nowhere: no such folder"):
            read_run(tmp_path / "nowhere")

    def test_nothing_of_a_run(self, tmp_path):
        with pytest.raises(ValueError, match=r"no run's folder, it holds none of history.csv"):
            read_run(tmp_path)

    def test_names_the_runs_inside(self, make_folder):
        make_folder()
        parent = make_folder("demo/version_1").parent
        with pytest.raises(ValueError, match=r"the runs version_0, version_1: give one of them"):
            read_run(parent)


def test_evaluation_only(make_folder):
    run = read_run(make_folder(rows=[{"epoch": -1.0, **evaluated(0.2)}]))
    assert (run.finished, len(run.evaluations), run.labelings) == (0, 1, [])


class TestAFolderOfAnothers:
    """What is shown of it is what it holds."""

    @pytest.mark.parametrize(
        ("name", "content"),
        [
            ("figures/ranking-epoch0.png", b"\x89PNG\r\n\x1a\nsecret"),
            ("figures/captions.json", b'{"ranking-epoch0.png": "secret"}'),
            ("config.yaml", b"secret: 1"),
            ("environment.json", b'{"secret": 1}'),
            ("summary.json", b'{"secret": 1}'),
            ("history.csv", b"epoch,secret\n0,1\n"),
        ],
    )
    @pytest.mark.parametrize("above", [False, True])
    def test_no_link_leads_out(self, make_folder, tmp_path, name, content, above):
        folder, outside = make_folder(), tmp_path / "outside"
        outside.mkdir()
        (outside / Path(name).name).write_bytes(content)
        (folder / name).unlink(missing_ok=True)
        if above and "/" in name:
            (folder / "figures").rmdir()
            (folder / "figures").symlink_to(outside)
        else:
            (folder / name).symlink_to(outside / Path(name).name)
        run = read_run(folder)
        assert "secret" not in repr(run)
        assert f"{Path(name).name} leads out of the run's folder and was left out." in run.notes

    def test_a_link_within_is_followed(self, make_folder, tmp_path):
        folder = make_folder(figures=("newest.png",))
        (folder / "figures/ranking-epoch0.png").symlink_to("newest.png")
        (tmp_path / "link").symlink_to(folder)
        assert [figure.name for figure in read_run(tmp_path / "link").figures] == ["ranking"]

    def test_what_is_no_picture(self, make_folder):
        folder = make_folder()
        (folder / "figures/ranking-epoch0.png").write_text("<script>")
        os.mkfifo(folder / "figures/clusters-epoch0.png")
        (folder / "figures/embedding-epoch0.png").symlink_to("embedding-epoch0.png")
        with (folder / "figures/agreement-epoch0.png").open("wb") as huge:
            huge.truncate(2**26)
        run = read_run(folder)
        assert run.figures == []
        assert run.notes == [
            "ranking-epoch0.png is no PNG and was left out.",
            "clusters-epoch0.png is not readable and was left out.",
            "embedding-epoch0.png is not readable and was left out.",
            "agreement-epoch0.png is too large and was left out.",
        ]

    @pytest.mark.parametrize("text", [BOMB, "a: &a\n  b: *a\n", "a: &a [{x: 1}, *a]\n"])
    def test_options_without_end(self, make_folder, text):
        folder = make_folder()
        (folder / "config.yaml").write_text(text)
        run = read_run(folder)
        assert run.config == {}
        assert "config.yaml is not readable and was left out." in run.notes
