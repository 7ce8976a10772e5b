from __future__ import annotations

import itertools

import pytest

from pplr_lightning.report.advice import advise
from pplr_lightning.report.reading import read_run

from .conftest import epoch, evaluated, options

EPS = "pseudo_labels.labeler.eps (now 0.45)"


def rules(run) -> list[str]:
    return [advice.rule for advice in advise(run)]


def one(run, word: str):
    (found,) = [advice for advice in advise(run) if word in advice.rule]
    return found


@pytest.fixture
def make(make_run):
    """Makes a finished run of one labelled epoch, with other values and options."""

    def make(map_before=0.4, map_after=0.4, config=None, **values):
        rows = [
            {"epoch": -1.0, **evaluated(map_before)},
            {**epoch(0, **values), **evaluated(map_after)},
        ]
        return make_run(rows=rows, config=options(**{"trainer__max_epochs": 1, **(config or {})}))

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
        assert advice.attempt == (
            f"Raise {EPS} by 0.05, or lower pseudo_labels.labeler.min_samples (now 4), or lower "
            "pseudo_labels.labeler.k1 (now 20). Begin with k1: 20 neighbours are more than the 13 "
            "images that a person has on average, so that other people are always among them. Set "
            "it to 13 or below."
        )
        assert advice.rule == "outliers above 40 % in the last epoch"


@pytest.mark.parametrize("clusters", [1, 15])
def test_few_clusters(make, clusters):
    merged = one(make(labels_clusters=clusters), "fewer clusters")
    assert merged.finding.startswith(f"{clusters} clusters are fewer than the 16 of a batch")
    assert merged.finding.endswith("people have merged.")
    assert merged.attempt.startswith(f"Lower {EPS} by 0.05, or lower pseudo_labels.labeler.k1 (now")
    sparse = one(make(labels_clusters=clusters, labels_outliers=0.8), "fewer clusters")
    assert "merged" not in sparse.finding
    assert sparse.attempt.startswith(f"Raise {EPS}")


def test_as_many_clusters_as_a_batch_has_places(make):
    assert advise(make(labels_clusters=16)) == []


def test_more_clusters_than_rows(make):
    advice = one(make(labels_clusters=600), "max_clusters")
    assert advice.attempt == "Raise model.max_clusters (now 600)."


# Rendered people, MobileNetV2: without AALS and with it from epoch 5 on, the first twelve epochs.
WITHOUT_AALS = (0.43, 0.49, 0.47, 0.48, 0.48, 0.50, 0.48, 0.51, 0.53, 0.54, 0.53, 0.55)
WITH_AALS = (0.43, 0.49, 0.47, 0.48, 0.48, 0.50, 0.42, 0.46, 0.43, 0.37, 0.33, 0.28)


@pytest.mark.parametrize(
    ("course", "aals", "found"),
    [(WITH_AALS, True, True), (WITHOUT_AALS, True, False), (WITH_AALS, False, False)],
)
def test_agreement_that_falls_since_aals_began(make_run, course, aals, found):
    rows = [epoch(number, labels_agreement_mean=value) for number, value in enumerate(course)]
    config = options(trainer__max_epochs=12, model__aals=aals, model__aals_start_epoch=5)
    advice = [one for one in advise(make_run(rows=rows, config=config)) if "AALS" in one.rule]
    assert bool(advice) == found
    if found:
        assert advice[0].finding.startswith(
            "Since AALS began in epoch 5, global and part features agree less: on 28 % of their "
            "neighbours in epoch 11, before on 50 %."
        )
        assert advice[0].attempt == (
            "Compare with a run without either refinement, model.aals false and model.pglr false: "
            "of what was measured (docs/benchmarks.md), now the one was ahead, now the other. "
            "model.aals_agreement relative smooths less."
        )


def test_low_agreement(make):
    advice = one(make(labels_agreement_mean=0.19), "agreement")
    assert "19 %" in advice.finding
    assert "model.network.weights (now pretrained)" in advice.attempt
    assert "model.network.num_parts (now 2)" in advice.attempt
    assert "data.image_size (now [64, 32])" in advice.attempt
    assert advise(make(labels_agreement_mean=0.2)) == []


@pytest.mark.parametrize(("share", "found"), [(0.24, True), (0.25, False)])
def test_clusters_that_follow_cameras(make, share, found):
    run = make(labels_across_cameras=share)
    assert any("several cameras" in rule for rule in rules(run)) == found
    if found:
        advice = one(run, "several cameras")
        assert advice.finding.startswith("Of the clustered images 24 % are in clusters of several")
        assert "CameraDBSCAN" in advice.attempt


def test_clusters_that_are_meant_to_be_of_one_camera(make):
    labeler = {"pseudo_labels__labeler": {"class_path": "CameraLinkage", "init_args": {}}}
    run = make(labels_across_cameras=0.0, config=labeler)
    assert not any("several cameras" in rule for rule in rules(run))


@pytest.mark.parametrize(("clusters", "found"), [(175, True), (174, False)])
def test_clusters_of_near_copies(make, clusters, found):
    run = make(labels_clusters=clusters, labels_outliers=0.3)  # 700 images in clusters, of 1,000
    assert any("per cluster" in rule for rule in rules(run)) == found
    if found:
        advice = one(run, "per cluster")
        assert advice.finding.startswith("A cluster has 4.0 images on average, no more than the 4")
        assert advice.attempt.startswith("Raise pseudo_labels.labeler.min_samples (now 4)")
    singles = make(labels_clusters=900, labels_singles=0.8)  # as a labeler meant it
    assert not any("per cluster" in rule for rule in rules(singles))


@pytest.mark.parametrize(("name", "change"), [("precision", "Lower"), ("recall", "Raise")])
def test_labels_that_miss_the_identities(make, name, change):
    advice = one(make(**{f"labels_{name}": 0.49}), name)
    assert advice.attempt.startswith(f"{change} {EPS}")
    assert "not label-free" in advice.attempt
    assert advise(make(**{f"labels_{name}": 0.5})) == []


def test_eps_is_turned_one_way_only(make):
    faults = {"outliers": 0.8, "clusters": 3, "precision": 0.1, "recall": 0.1, "largest": 0.9}
    for count in range(1, 6):
        for names in itertools.combinations(faults, count):
            found = advise(make(**{f"labels_{name}": faults[name] for name in names}))
            assert len(found) == count
            text = " ".join(advice.attempt for advice in found)
            ways = [way for way in ("Raise", "Lower") if f"{way} pseudo_labels" in text]
            assert len(ways) == ("better features" not in text)


def test_clusters_that_mix_and_split_people(make):
    first, second = advise(make(labels_precision=0.4, labels_recall=0.4))
    assert first.attempt == second.attempt
    assert "better features (model.network.weights (now pretrained))" in first.attempt
    assert "not label-free" in first.attempt


class TestOtherMethods:
    def test_without_agreement(self, make_run):
        row = {**epoch(0), **evaluated(0.4)}
        del row["labels/agreement_mean"]
        assert advise(make_run(rows=[row], config=options(trainer__max_epochs=1))) == []

    def test_names_only_options_that_the_labeler_has(self, make):
        labeler = {"class_path": "some.KMeans", "init_args": {"min_samples": 9}}
        run = make(config={"pseudo_labels__labeler": labeler}, labels_outliers=0.9)
        attempt = one(run, "outliers").attempt
        assert attempt == "Lower pseudo_labels.labeler.min_samples (now 9)."
        run = make(config={"pseudo_labels__labeler": "some.KMeans"}, labels_outliers=0.9)
        assert one(run, "outliers").attempt == "Try other options of pseudo_labels.labeler."

    def test_another_schedule(self, make):
        scheduler = {"class_path": "torch.optim.lr_scheduler.CosineAnnealingLR"}
        run = make(config={"lr_scheduler": scheduler}, map_after=0.42)
        assert one(run, "is the best").attempt.endswith("and lr_scheduler with it.")

    def test_another_network(self, make):
        assert advise(make(config={"model__network": "some.Network"})) == []

    @pytest.mark.parametrize("labeler", ["Identities", "Instances"])
    def test_labels_that_are_no_clusters_are_not_judged(self, make_folder, labeler):
        values = {"clusters": 3, "outliers": 0.9, "agreement_mean": 0.0, "recall": 0.0}
        row = epoch(0, **{f"labels_{name}": value for name, value in values.items()})
        config = options(
            trainer__max_epochs=1, model__network__weights=None,
            pseudo_labels__labeler=f"pplr_lightning.labelers.{labeler}",
        )  # fmt: skip
        run = read_run(make_folder(rows=[{**row, **evaluated(0.4)}], config=config))
        assert run.labelings == []
        assert advise(run) == []


class TestRetrieval:
    def test_worse_than_before(self, make):
        advice = one(make(map_before=0.4, map_after=0.39), "below the first")
        assert "40.0 % at first, 39.0 % at the end" in advice.finding
        assert "optimizer.lr (now 0.0002)" in advice.attempt

    def test_fallen(self, make, make_run):
        rows = [{**epoch(e), **evaluated(value)} for e, value in enumerate((0.4, 0.5, 0.47))]
        advice = one(make_run(rows=rows), "below the best")
        assert advice.finding == "mAP has fallen by 3.0 points since its best."
        assert "lr_scheduler.step_size (now 4)" in advice.attempt
        rows[2] |= evaluated(0.49)
        assert advise(make_run(rows=rows)) == []

    def test_still_rising(self, make):
        advice = one(make(map_before=0.4, map_after=0.42), "is the best")
        assert "2.0 points" in advice.finding
        assert "trainer.max_epochs (now 1)" in advice.attempt
        assert "lr_scheduler.step_size (now 4)" in advice.attempt
        assert advise(make(map_before=0.4, map_after=0.405)) == []

    def test_not_evaluated(self, make_run):
        rows = [epoch(0), epoch(1), epoch(2)]
        assert rules(make_run(rows=rows)) == ["no evaluation in the history"]


def test_stopped_early(make):
    advice = one(make(config={"trainer__max_epochs": 50}), "fewer epochs")
    assert advice.finding == "The run ended after 1 of 50 epochs."
    assert "--ckpt_path last" in advice.attempt


def test_random_weights(make):
    assert (
        "weights"
        in rules(
            make(
                config={"model__network__weights": None, "trainer__max_epochs": 9},
                labels_outliers=0.9,
            )
        )[0]
    )  # before all that follows from them
    advice = one(make(config={"model__network__weights": None}), "weights")
    assert "random weights" in advice.finding
    assert "model.network.weights" in advice.attempt
    assert advise(make(config={"model__network__weights": "some.ckpt"})) == []


def test_labelling_longer_than_training(make):
    advice = one(make(time_extraction=39.0, time_training=20.0), "more seconds")
    assert "2.0 times as long" in advice.finding


def test_without_config_or_with_nonsense_in_it(make_run):
    assert advise(make_run(config={})) == []
    nonsense = {"data": {"batch_size": "many"}, "trainer": {"max_epochs": None}, "model": [1]}
    assert advise(make_run(config=nonsense)) == []
    nonsense = {"model": {"init_args": 3}, "pseudo_labels": {"labeler": {"class_path": [5]}}}
    assert advise(make_run(config=nonsense)) == []


def test_a_run_that_left_nothing(make_run):
    found = rules(make_run(rows=[]))
    assert found == [
        "fewer epochs finished than trainer.max_epochs",
        "no evaluation in the history",
    ]


def test_outliers_that_rise_in_every_epoch(make_run):
    for course, found in (((0.1, 0.2, 0.25), True), ((0.1, 0.3, 0.2), False), ((0.1, 0.3), False)):
        rows = [epoch(number, labels_outliers=share) for number, share in enumerate(course)]
        advice = [one for one in advise(make_run(rows=rows)) if "risen" in one.rule]
        assert bool(advice) == found
        if found:
            assert advice[0].finding.startswith("Outliers have risen in every epoch, from 10 % to")
            assert "Do not go on with this run" in advice[0].finding
            assert advice[0].attempt.startswith(f"Raise {EPS}")


def test_a_cluster_that_swallows_the_set(make):
    assert advise(make(labels_largest=0.5)) == []
    advice = one(make(labels_largest=0.62), "a cluster of more than 50 %")
    assert advice.finding == "One cluster holds 62 % of the images: people have merged."
    assert advice.attempt.startswith(f"Lower {EPS} by 0.05, or lower pseudo_labels.labeler.k1 (now")


def test_k1_is_named_where_it_is_the_cause(make_run):
    rows = [epoch(0, labels_largest=0.9)]
    (advice,) = [one for one in advise(make_run(rows=rows)) if "cluster" in one.rule]
    assert "Begin with k1: 20 neighbours are more than the 13 images that" in advice.attempt
    for environment in ({}, {"data": {"training images": 5000,
                                      "identities known of training images": 75}}):  # fmt: skip
        run = make_run(rows=rows, environment=environment)
        assert not any("Begin with k1" in one.attempt for one in advise(run))


class TestClustersFarFromPeople:
    """1,000 images of 75 people, 13 of each; of 700 that are in clusters."""

    def advice(self, make, clusters, k1, **labeler):
        init_args = {"k1": k1, "eps": 0.45, "min_samples": 4, **labeler}
        config = {"pseudo_labels__labeler": {"class_path": "DBSCAN", "init_args": init_args}}
        found = advise(make(config=config, labels_clusters=clusters))
        return [advice for advice in found if "per person" in advice.rule]

    def test_too_many(self, make):
        (advice,) = self.advice(make, 300, 6)
        assert advice.finding == (
            "300 clusters are far from the 75 people that 13 images each make of 1000: a cluster "
            "has 2.3 on average."
        )
        assert "Begin with k1: 6 neighbours are few of the 13 images" in advice.attempt
        assert "set it to 7 to 13." in advice.attempt
        assert "lower pseudo_labels.labeler.k1" not in advice.attempt
        assert "not label-free" in advice.attempt
        assert self.advice(make, 200, 6) == []

    def test_too_few_of_what_the_user_expects(self, make):
        (advice,) = self.advice(make, 50, 30, images_per_person=3)
        assert advice.finding.startswith("50 clusters are far from the 333 people that 3 images")
        assert advice.attempt.startswith(f"Lower {EPS} by 0.05")
        assert "Set it to 3 or below." in advice.attempt
        assert "label-free" not in advice.attempt

    def test_not_beside_another_finding(self, make):
        assert not [rule for rule in rules(make(labels_clusters=300, labels_outliers=0.9))
                    if "per person" in rule]  # fmt: skip


def test_settings_that_were_chosen(make):
    """Their last values are named, and what the choice goes by."""
    auto = dict.fromkeys(("k1", "k2", "eps", "min_samples"), "auto")
    config = {"pseudo_labels__labeler": {"class_path": "DBSCAN", "init_args": auto}}
    advice = one(
        make(config=config, labels_largest=0.9, labels_k1=24, labels_eps=0.65), "a cluster"
    )
    assert advice.attempt == (
        "Lower pseudo_labels.labeler.eps (now auto, 0.65) by 0.05, or lower "
        "pseudo_labels.labeler.k1 (now auto, 24). Begin with k1: 24 neighbours are more than the "
        "13 images that a person has on average, so that other people are always among them. Set "
        "it to 13 or below. What is auto goes by pseudo_labels.labeler.images_per_person, if you "
        "know or guess it."
    )
