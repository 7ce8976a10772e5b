from __future__ import annotations

import pytest

from pplr_lightning.report.history import (
    describe_epoch,
    first_best_last,
    read_history,
    working_times,
    write_history,
)

from .conftest import epoch, evaluated, history


def test_what_is_written_is_read(tmp_path):
    file = tmp_path / "run/history.csv"
    write_history(file, reversed(history()))
    assert read_history(file) == (history(), [])
    assert file.read_text().startswith("epoch,finished,")
    assert [path.name for path in file.parent.iterdir()] == ["history.csv"]


def test_many_lines_of_a_log_are_one_row_per_epoch(tmp_path):
    file = tmp_path / "metrics.csv"
    file.write_text(
        "epoch,labels/clusters,lr-Adam,step,train/loss,val/mAP\n"
        ",,,0,,0.25\n0,,2e-4,0,6.0,\n0,,1e-4,1,4.0,\n0,70,,1,,0.5\n1,,1e-4,2,3.0,\n"
    )
    rows, notes = read_history(file)
    assert notes == []
    assert rows == [
        {"epoch": -1, "step": 0, "val/mAP": 0.25},
        {"epoch": 0, "lr": 1e-4, "step": 1, "train/loss": 5, "labels/clusters": 70, "val/mAP": 0.5},
        {"epoch": 1, "lr": 1e-4, "step": 2, "train/loss": 3},
    ]


@pytest.mark.parametrize(
    "broken",
    [
        "1e300,2,3",
        "nan,2,3",
        "1,2," + 150_000 * "3",
        "1,2",
        "1,2,3,4",
        "1,two,3",
        "one,2,3",
        '1,"2,3',
        "\0\0\0",
        "1,2\0,x",
        "\udcff,1,2",
    ],
)
def test_a_broken_line_is_named_and_left_out(tmp_path, broken):
    file = tmp_path / "metrics.csv"
    text = f"epoch,step,train/loss\n0,1,2.0\n{broken}\n"
    file.write_bytes(text.encode(errors="surrogateescape"))
    rows, notes = read_history(file)
    assert rows == [{"epoch": 0, "step": 1, "train/loss": 2}]
    assert notes == ["metrics.csv, line 3: not readable, left out."]


def test_several_broken_lines_are_counted(tmp_path):
    file = tmp_path / "metrics.csv"
    file.write_text("epoch,step\n0\n0,1\n0\n0\n")
    assert read_history(file)[1] == ["metrics.csv, line 2 and 2 more: not readable, left out."]


@pytest.mark.parametrize("text", ["", "step,train/loss\n1,2\n", "\n\n", 150_000 * "a"])
def test_a_file_without_epochs(tmp_path, text):
    file = tmp_path / "metrics.csv"
    file.write_text(text)
    assert read_history(file) == ([], ["metrics.csv has no column `epoch` and was left out."])


def test_what_follows_a_cell_too_long_is_read(tmp_path):
    file = tmp_path / "metrics.csv"
    file.write_text(f"epoch,step\n0,1\n1,{150_000 * '1'}\n2,3\n")
    rows, notes = read_history(file)
    assert [row["epoch"] for row in rows] == [0, 2]
    assert notes == ["metrics.csv, line 3: not readable, left out."]


def test_what_is_not_finite_or_too_large_is_not_there(tmp_path):
    file = tmp_path / "metrics.csv"
    file.write_text("epoch,step,train/loss\n0,1,nan\n0,2,inf\n0,2,1e308\n0,2,-1e308\n")
    assert read_history(file)[0] == [{"epoch": 0, "step": 2}]


class TestLine:
    def test_tells_the_story(self):
        assert describe_epoch({**epoch(1), **evaluated(0.5), "time/evaluation": 7.25}) == (
            "epoch 1: 71 clusters, 30.0 % outliers, agreement 0.400, ARI 0.700; "
            "loss 5.000 (pglr 2.000); mAP 50.0 %, rank-1 70.0 %; "
            "labels 5.0 s, training 20.0 s, evaluation 7.2 s"
        )

    def test_without_identities_evaluation_and_parts_of_the_loss(self):
        row = {"epoch": 0.0, "train/loss": 1.5, "time/training": 2.0}
        assert describe_epoch(row) == "epoch 0: loss 1.500; training 2.0 s"

    def test_without_agreement(self):
        row = {"epoch": 0.0, "labels/clusters": 7.0, "labels/outliers": 0.25}
        assert describe_epoch(row) == "epoch 0: 7 clusters, 25.0 % outliers"
        row["labels/singles"] = 0.1
        assert describe_epoch(row) == "epoch 0: 7 clusters, 25.0 % outliers, 10.0 % alone"

    def test_of_an_epoch_that_left_nothing(self):
        assert describe_epoch({"epoch": 0.0}) == "epoch 0"


def test_times_of_labels_are_added_up():
    assert working_times(epoch(0)) == {"labels": 5.0, "training": 20.0, "evaluation": 0.0}


def test_best_is_by_map():
    rows = [{"epoch": e, "val/mAP": value} for e, value in enumerate((0.1, 0.4, 0.3))]
    picked = first_best_last(rows)
    assert [picked[name]["epoch"] for name in ("first", "best", "last")] == [0, 1, 2]
    assert first_best_last([]) == {}


def test_best_is_not_by_what_was_reranked():
    rows = [{"mAP": 0.2, "rerank/mAP": 0.3}, {"mAP": 0.1, "rerank/mAP": 0.9}]
    assert first_best_last(rows, by="mAP")["best"] == rows[0]
