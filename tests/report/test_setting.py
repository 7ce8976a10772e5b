from __future__ import annotations

import pytest

from pplr_lightning.report.setting import describe_setting, duration, flatten, without_home

from .conftest import options


@pytest.fixture
def say(make_run):
    """Says a topic of a run with some options changed."""

    def say(topic: str, run=None, **values):
        return dict(describe_setting(run or make_run(config=options(**values))))[topic]

    return say


def test_method(say, make_run):
    assert say("Method") == "PPLRModule (max_clusters 600, beta 0.5, camera_weight 0.0)"
    assert say("Method", model="some.SimCLRModule") == "SimCLRModule"


def test_labels(say):
    assert say("Labels") == (
        "Unsupervised: clusters of the images are the labels; identities were not used. "
        "Labeler: DBSCAN (k1 20, eps 0.45, min_samples 4)."
    )
    labeler = "pplr_lightning.labelers."
    cameras = say("Labels", pseudo_labels__labeler=f"{labeler}CameraDBSCAN")
    assert cameras.startswith("Unsupervised: clusters")
    identities = say("Labels", pseudo_labels__labeler=f"{labeler}Identities")
    assert identities.startswith("Supervised")
    assert identities.endswith("not label-free. Labeler: Identities.")
    instances = say("Labels", pseudo_labels__labeler=f"{labeler}Instances")
    assert instances.startswith("Unsupervised: every image is a class of its own")
    clusters = say("Labels", pseudo_labels__labeler="pplr_lightning.KMeans")
    assert clusters.startswith("Unsupervised: clusters")
    other = {"class_path": "some.KMeans", "init_args": {"k": 5}}
    assert say("Labels", pseudo_labels__labeler=other) == "Labeler: KMeans (k 5)."
    default = say("Labels", pseudo_labels__labeler=None)
    assert default.startswith("Unsupervised: clusters")
    assert default.endswith("Labeler: DBSCAN.")


def test_cameras(say):
    assert say("Cameras") == "Camera ids were not used in training."
    assert "choice of positives only" in say("Cameras", data__use_cameras=True)
    loss = say("Cameras", data__use_cameras=True, model__camera_weight=0.5)
    assert loss.endswith("in the camera loss (weight 0.5) and in the choice of positives.")
    assert say("Cameras", model__camera_weight=0.5).endswith("(weight 0.5).")
    distance = say("Cameras", pseudo_labels__labeler="pplr_lightning.labelers.CameraDBSCAN")
    assert distance == "Camera ids were used in the distance between images (CameraDBSCAN)."


def test_start(say):
    assert say("Start") == "Published weights of resnet10t."
    assert say("Start", model__network__weights=None) == "Random weights of resnet10t."
    warm = say("Start", model__network__weights="some.ckpt")
    assert warm.startswith("resnet10t with the weights of some.ckpt.")
    assert "not label-free" in warm


def test_data(say, make_run):
    assert say("Data") == (
        "Market1501: 1,000 training images (identities known: 75, cameras known: 6), 100 query and "
        "400 gallery images."
    )
    assert say("Data", make_run(environment={})) == "Market1501."


def test_evaluation(say, make_run):
    assert say("Evaluation") == (
        "Query to gallery, the same camera's images left out; compared by the features: global."
    )
    evaluation = {"topk": [1], "test_features": "parts", "rerank": False}
    stopped = make_run(config=options(evaluation=evaluation))  # before there was a summary
    assert say("Evaluation", stopped).endswith("by the features: parts; no re-ranking.")
    summary = {"features": "both", "reranking": {"k1": 20, "k2": 6}, "last": {"mAP": 1}}
    ended = make_run(summary=summary)
    assert say("Evaluation", ended).endswith("features: both; re-ranked beside it (k1 20, k2 6).")
    other = {"protocol": "single_gallery_shot", "variant": "split 3 of 20", "clothes": "same"}
    told = say("Evaluation", make_run(summary={**summary, **other}))
    assert "; protocol: single_gallery_shot; clothes: same; split 3 of 20." in told
    told = say("Evaluation", make_run(summary={**summary, "tracklets": "pooled"}))
    assert told.endswith("; tracklets: pooled.")
    told = say("Evaluation", make_run(summary={**summary, "same_camera": True}))
    assert told.startswith("Query to gallery, the same camera's images counted, too; compared")
    trained = make_run().rows[2:]
    assert say("Evaluation", make_run(rows=trained)).endswith("Not evaluated before training.")
    assert say("Evaluation", make_run(rows=[])) == "None: there is no mAP in this run."


def test_length(say, make_run):
    assert say("Length") == "3 of 3 epochs finished, 30 steps, 1 min 30 s in all."
    assert say("Length", make_run(rows=[])) == "No epoch was trained."
    assert say("Length", make_run(rows=[{"epoch": 0.0}])) == "0 of 3 epochs finished."


def test_machine(say, make_run):
    assert say("Machine") == "2 processes on Some CPU, precision 32-true."
    hardware = {"processes": 1, "device": "Some GPU", "cpu": "Some CPU", "precision": "bf16-mixed"}
    run = make_run(environment={"hardware": hardware})
    assert say("Machine", run) == "1 process on Some GPU, precision bf16-mixed."


def test_another_network(make_run):
    run = make_run(config=options(model__network="some.Network"))
    assert "Start" not in dict(describe_setting(run))


def test_a_run_of_which_nothing_is_known(make_run):
    run = make_run(rows=[], config={}, environment={"data": "none", "hardware": 3})
    assert [topic for topic, _ in describe_setting(run)] == ["Evaluation", "Length"]


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.0004, "< 0.01 s"), (0.25, "0.25 s"), (12.34, "12.3 s"), (59.99, "60 s"),
        (119.6, "2 min 0 s"), (3600, "1 h 0 min"), (7290, "2 h 1 min"),
    ],
)  # fmt: skip
def test_duration(seconds, text):
    assert duration(seconds) == text


def test_flatten():
    values = {"a": {"b": None, "c": True}, "d": [1, 2], "e": [{"f": 1}, "g"], "h": {}}
    values["i"] = {"class_path": "j.K", "init_args": {"l": 1, "m": {"init_args": {"n": 2}}}}
    assert dict(flatten(values)) == {
        "a.b": "none", "a.c": "true", "d": "[1, 2]", "e.0.f": "1", "e.1": "g", "h": "{}",
        "i.class_path": "j.K", "i.l": "1", "i.m.n": "2",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("/home/jane.doe/runs/a", "~/runs/a"),
        ("from /Users/jane/x and /home/joe", "from ~/x and ~"),
        (r"C:\Users\jane\runs", r"~\runs"),
        ("/root/data", "~/data"),
        ("/data/rooted/home", "/data/rooted/home"),
    ],
)
def test_nobodys_home_is_named(text, expected):
    assert without_home(text) == expected
