from __future__ import annotations

from copy import deepcopy

import pytest

from pplr_lightning.report.advice import advise, is_clustered

from .conftest import CONFIG, epoch, evaluated


def rules(run) -> list[str]:
    return [advice.rule for advice in advise(run)]


def one(run, word: str):
    (found,) = [advice for advice in advise(run) if word in advice.rule]
    return found


@pytest.fixture
def make(make_run):
    """Makes a finished run of one labelled epoch, with other values and options."""

    def make(map_before=0.4, map_after=0.4, options=None, **values):
        config = deepcopy(CONFIG)
        config["trainer"]["max_epochs"] = 1
        for path, value in (options or {}).items():
            section, name = path.split(".")
            config[section][name] = value
        rows = [
            {"epoch": -1.0, **evaluated(map_before)},
            {**epoch(0, **values), **evaluated(map_after)},
        ]
        return make_run(rows=rows, config=config)

    return make


def test_a_run_in_order_gets_none(make):
    assert advise(make()) == []


@pytest.mark.parametrize(("outliers", "found"), [(0.41, True), (0.40, False)])
def test_many_outliers(make, outliers, found):
    run = make(labels_outliers=outliers)
    assert any("outliers" in rule for rule in rules(run)) == found
    if found:
        advice = one(run, "outliers")
        assert advice.finding == "41 % of the images are outliers and were not trained on."
        assert "Raise pseudo_labels.eps (now 0.45)" in advice.attempt
        assert "pseudo_labels.min_samples (now 4)" in advice.attempt
        assert advice.rule == "outliers above 40 % in the last epoch"


def test_few_clusters(make):
    merged = one(make(labels_clusters=15), "fewer clusters")
    assert merged.finding.startswith("15 clusters are fewer than the 16 of a batch")
    assert "Lower pseudo_labels.eps" in merged.attempt
    sparse = one(make(labels_clusters=15, labels_outliers=0.8), "fewer clusters")
    assert "Raise pseudo_labels.eps" in sparse.attempt
    assert advise(make(labels_clusters=16)) == []


def test_more_clusters_than_rows(make):
    advice = one(make(labels_clusters=600), "max_clusters")
    assert advice.attempt == "Raise model.max_clusters (now 600)."


def test_low_agreement(make):
    advice = one(make(labels_agreement_mean=0.19), "agreement")
    assert "19 %" in advice.finding
    assert "model.num_parts (now 2)" in advice.attempt
    assert advise(make(labels_agreement_mean=0.2)) == []


@pytest.mark.parametrize(("name", "change"), [("precision", "Lower"), ("recall", "Raise")])
def test_labels_that_miss_the_identities(make, name, change):
    advice = one(make(**{f"labels_{name}": 0.49}), name)
    assert advice.attempt.startswith(f"{change} pseudo_labels.eps (now 0.45)")
    assert "not label-free" in advice.attempt
    assert advise(make(**{f"labels_{name}": 0.5})) == []


class TestRetrieval:
    def test_worse_than_before(self, make):
        advice = one(make(map_before=0.4, map_after=0.39), "below the first")
        assert "40.0 % at first, 39.0 % at the end" in advice.finding

    def test_fallen(self, make, make_run):
        rows = [{**epoch(e), **evaluated(value)} for e, value in enumerate((0.4, 0.5, 0.47))]
        advice = one(make_run(rows=rows), "below the best")
        assert advice.finding == "mAP has fallen by 3.0 points since its best."
        rows[2] |= evaluated(0.49)
        assert advise(make_run(rows=rows)) == []

    def test_still_rising(self, make):
        advice = one(make(map_before=0.4, map_after=0.42), "is the best")
        assert "2.0 points" in advice.finding
        assert "trainer.max_epochs (now 1)" in advice.attempt
        assert advise(make(map_before=0.4, map_after=0.405)) == []

    def test_not_evaluated(self, make_run):
        rows = [epoch(0), epoch(1), epoch(2)]
        assert rules(make_run(rows=rows)) == ["no evaluation in the history"]


def test_stopped_early(make):
    advice = one(make(options={"trainer.max_epochs": 50}), "fewer epochs")
    assert advice.finding == "The run ended after 1 of 50 epochs."
    assert "--ckpt_path last" in advice.attempt


def test_random_weights(make):
    assert "random weights" in one(make(options={"model.pretrained": False}), "pretrained").finding
    start = {"model.pretrained": False, "model.warm_start": "some.ckpt"}
    assert advise(make(options=start)) == []
    start = {"model.pretrained": False, "model.backbone_weights": "some.pth"}
    assert advise(make(options=start)) == []


def test_labelling_longer_than_training(make):
    advice = one(make(time_extraction=39.0, time_training=20.0), "more seconds")
    assert "2.0 times as long" in advice.finding


def test_identities_as_labels_are_not_judged_as_clusters(make):
    run = make(
        options={"pseudo_labels.source": "identities", "model.pretrained": False},
        labels_clusters=3,
        labels_outliers=0.9,
        labels_agreement_mean=0.0,
        labels_recall=0.0,
    )
    assert not is_clustered(run)
    assert advise(run) == []


def test_without_config_or_with_nonsense_in_it(make_run):
    assert advise(make_run(config={})) == []
    nonsense = {"data": {"batch_size": "many"}, "trainer": {"max_epochs": None}, "model": [1]}
    assert advise(make_run(config=nonsense)) == []


def test_a_run_that_left_nothing(make_run):
    found = rules(make_run(rows=[]))
    assert found[:2] == [
        "fewer epochs finished than trainer.max_epochs",
        "no evaluation in the history",
    ]
