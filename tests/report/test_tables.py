from __future__ import annotations

import pytest

from pplr_lightning.report.tables import compared, labels, metrics, results, times

from .conftest import epoch, evaluated


def test_results(make_run):
    table = results(make_run())
    assert table.header == ["%", "first, before training", "best, epoch 1", "last, epoch 2",
                            "last - first"]  # fmt: skip
    assert table.rows[0] == ["mAP", "20.0", "50.0", "49.0", "+29.0"]
    names = ["mAP", "mINP", "rank-1", "rank-5", "rank-10"]
    assert [row[0] for row in table.rows] == names


def test_results_of_one_evaluation(make_run):
    table = results(make_run(rows=[{**epoch(0), **evaluated(0.5)}]))
    assert table.header == ["%", "last, epoch 0"]
    assert table.rows[0] == ["mAP", "50.0"]
    assert results(make_run(rows=[epoch(0)])) is None


def test_metrics_of_another_kind_are_listed_too(make_run):
    row = {**epoch(0), **evaluated(0.5), "val/rerank/mAP": 0.6, "val/rerank/rank-1": 0.7}
    run = make_run(rows=[{**row, "val/rank-20": 0.9}])
    assert metrics(run) == [
        "val/mAP", "val/mINP", "val/rank-1", "val/rank-5", "val/rank-10", "val/rank-20",
        "val/rerank/mAP", "val/rerank/rank-1",
    ]  # fmt: skip
    assert ["re-ranked mAP", "60.0"] in results(run).rows
    assert ["last re-ranked mAP, %", "60.0", "60.0", "+0.0"] in compared(run, run).rows


def test_labels(make_run):
    table = labels(make_run())
    assert table.header == ["", "epoch 0", "epoch 2"]
    assert table.rows == [
        ["clusters", "70", "72"],
        ["identities in truth", "75", "75"],
        ["outliers, % of the images", "30.0", "30.0"],
        ["agreement, mean", "0.40", "0.40"],
        ["adjusted Rand index", "0.70", "0.70"],
        ["precision of pairs", "0.60", "0.60"],
        ["recall of pairs", "0.80", "0.80"],
    ]


def test_labels_of_one_epoch_without_identities(make_run):
    row = {"epoch": 0.0, "labels/clusters": 5.0, "labels/agreement_part2": 0.25}
    environment = {"data": {"identities known of training images": "none"}}
    table = labels(make_run(rows=[row], environment=environment))
    assert table == (["", "epoch 0"], [["clusters", "5"], ["agreement, part 2", "0.25"]])
    assert labels(make_run(rows=[])) is None


def test_times(make_run):
    found = {time.stage: time for time in times(make_run())}
    extraction = found["features of the training images"]
    assert extraction[1:4] == ("12 s", "4 s", "250")  # 3 x 1000 images
    assert found["clustering"].total == "3 s"
    assert found["training"][1:4] == ("1 min 0 s", "20 s", "32")  # 30 steps of 64
    assert found["evaluation"][1:4] == ("15 s", "5 s", "100")  # 3 x 500
    assert sum(time.share for time in found.values()) == pytest.approx(100)


def test_times_of_stages_that_a_method_adds(make_run):
    run = make_run(rows=[epoch(0, time_memory=5.0)])
    assert {time.stage: time.total for time in times(run)}["memory"] == "5 s"
    assert sum(time.share for time in times(run)) == pytest.approx(100)


def test_times_where_the_numbers_of_images_are_not_known(make_run):
    assert {time.rate for time in times(make_run(environment={}, config={}))} == {""}
    assert times(make_run(rows=[])) == []


def test_labels_without_agreement(make_run):
    row = epoch(0)
    del row["labels/agreement_mean"]
    names = [row[0] for row in labels(make_run(rows=[row])).rows]
    assert names[:4] == [
        "clusters", "identities in truth", "outliers, % of the images", "adjusted Rand index",
    ]  # fmt: skip


def test_compared(make_run):
    one = make_run()
    other = make_run(rows=[{**epoch(0, labels_clusters=80), **evaluated(0.6)}])
    table = compared(one, other)
    assert table.header == ["", "A", "B", "B - A"]
    rows = {row[0]: row[1:] for row in table.rows}
    assert rows["first mAP, %"] == ["20.0", "-", ""]
    assert rows["best evaluation"] == ["epoch 1", "-", ""]
    assert rows["last evaluation"] == ["epoch 2", "epoch 0", ""]
    assert rows["last mAP, %"] == ["49.0", "60.0", "+11.0"]
    assert rows["last clusters"] == ["72", "80", "+8"]
    assert rows["last agreement, mean"] == ["0.40", "0.40", "+0.00"]
    assert rows["epochs finished"] == ["3", "1", "-2"]
    assert rows["training, seconds each time"] == ["20", "20", "+0"]


def test_compared_with_a_run_that_left_nothing(make_run):
    rows = {row[0]: row[1:] for row in compared(make_run(), make_run(rows=[])).rows}
    assert rows["last mAP, %"] == ["49.0", "-", ""]
    assert rows["epochs finished"] == ["3", "0", "-3"]
