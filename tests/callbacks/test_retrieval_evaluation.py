from __future__ import annotations

import json
import re
import warnings
from copy import deepcopy

import pytest
import torch
from lightning.pytorch import Trainer
from lightning.pytorch.demos.boring_classes import BoringModel
from lightning.pytorch.loggers import CSVLogger
from lightning.pytorch.utilities.exceptions import MisconfigurationException

from pplr_lightning import (
    PPLRDataModule,
    PPLRModule,
    PseudoLabeling,
    RetrievalEvaluation,
    RunRecord,
)
from pplr_lightning.callbacks.shared import History
from pplr_lightning.data import ImageFolder, Market1501, Splits
from pplr_lightning.evaluation.extraction import join_features
from pplr_lightning.functional import rerank_distance, retrieval_metrics
from pplr_lightning.labelers import DBSCAN
from pplr_lightning.networks import PartNetwork


@pytest.fixture
def data(drawn):
    return PPLRDataModule(
        Market1501(drawn),
        image_size=(64, 32),
        batch_size=16,
        iterations=2,
        num_workers=0,
        eval_batch_size=13,
    )


@pytest.fixture
def module():
    torch.manual_seed(0)
    return PPLRModule(
        PartNetwork("resnet10t", weights=None, norm_batch_size=8), max_clusters=60, agreement_k=4
    )


def trainer(tmp_path, evaluation, **options):
    labeling = PseudoLabeling(DBSCAN(k1=6, k2=2, eps=0.6, min_samples=2))
    return Trainer(
        accelerator="cpu",
        logger=CSVLogger(tmp_path),
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,
        callbacks=[labeling, evaluation],
        **{"max_epochs": 2, **options},
    )


def by_hand(module, data, kind="global", rerank=False):
    module.eval()
    samples = data.splits.query + data.splits.gallery
    batches = data.val_dataloader()
    with torch.no_grad():
        branches = [module.branches(batch.images) for batch in batches]
    features = torch.cat([join_features(*branch, kind=kind) for branch in branches])
    module.train()
    persons = torch.tensor([sample.person_id for sample in samples])
    cameras = torch.tensor([sample.camera_id for sample in samples])
    queries = len(data.splits.query)
    distance = 2 - 2 * features[:queries] @ features[queries:].T
    if rerank:
        distance = rerank_distance(features[:queries], features[queries:])
    return retrieval_metrics(
        distance, persons[:queries], persons[queries:], cameras[:queries], cameras[queries:]
    )


@pytest.mark.parametrize("stage", ["validate", "test"])
def test_validate_and_test_report_the_protocols_value(tmp_path, module, data, stage, capsys):
    runner = trainer(tmp_path, RetrievalEvaluation())
    (logged,) = getattr(runner, stage)(module, datamodule=data, verbose=False)
    prefix = "val" if stage == "validate" else "test"
    expected = {f"{prefix}/{name}": value for name, value in by_hand(module, data).items()}
    assert logged == pytest.approx(expected, abs=1e-6)
    printed = capsys.readouterr().out
    assert "mAP" in printed
    assert "features: global; no re-ranking" in printed


class TestTracklets:
    def folder(self, drawn, tracklet):
        folders = drawn / "bounding_box_train", drawn / "query", drawn / "bounding_box_test"
        root, query, gallery = map(str, folders)
        return PPLRDataModule(
            ImageFolder(root, query=query, gallery=gallery, pattern=tracklet),
            image_size=(64, 32), num_workers=0, eval_batch_size=13,
        )  # fmt: skip

    def test_their_means_are_compared(self, tmp_path, module, drawn, capsys):
        data = self.folder(drawn, r"^(?P<tracklet>(?P<person>-?\d+)_c(?P<camera>\d)s\d+)_")
        values = {}
        for pooled in (True, False):
            runner = trainer(tmp_path, RetrievalEvaluation(pool_tracklets=pooled, topk=(1,)))
            (values[pooled],) = runner.test(module, datamodule=data, verbose=False)
            said = f"no re-ranking; tracklets: {'pooled' if pooled else 'not pooled'}"
            assert said in " ".join(capsys.readouterr().out.split())
        assert values[False]["test/mAP"] == pytest.approx(by_hand(module, data)["mAP"], abs=1e-6)
        module.eval()
        with torch.no_grad():
            features = [module.branches(batch.images)[0] for batch in data.val_dataloader()]
        samples = data.splits.query + data.splits.gallery
        walks = {}  # of each role the frames of one walk
        for row, feature in enumerate(torch.cat(features)):
            role, one = row < len(data.splits.query), samples[row]
            walks.setdefault((role, one.tracklet_id, one.person_id, one.camera_id), []).append(
                feature
            )
        assert len(walks) < len(samples)
        means = torch.stack([torch.stack(frames).mean(0) for frames in walks.values()])
        means = torch.nn.functional.normalize(means, dim=1)
        role, _, persons, cameras = map(torch.tensor, zip(*walks, strict=True))
        expected = retrieval_metrics(
            2 - 2 * means[role] @ means[~role].T,
            *(persons[role], persons[~role], cameras[role], cameras[~role]),
            topk=(1,),
        )
        expected = {f"test/{name}": value for name, value in expected.items()}
        assert values[True] == pytest.approx(expected, abs=1e-6)

    def test_of_two_people(self, tmp_path, module, drawn):
        data = self.folder(drawn, r"^(?P<person>-?\d+)_c(?P<camera>\d)s(?P<tracklet>\d+)_")
        with pytest.raises(
            ValueError, match=r"are of one tracklet and two people: .*pool_tracklet"
        ):
            trainer(tmp_path, RetrievalEvaluation()).test(module, datamodule=data, verbose=False)


def test_protocol_and_variant_of_the_data_set(tmp_path, module, data, capsys):
    data.dataset.protocol, data.dataset.variant = "camera_pairs", "V2"
    values = []
    for protocol in (None, "standard"):
        runner = trainer(tmp_path, RetrievalEvaluation(protocol=protocol))
        values += runner.test(module, datamodule=data, verbose=False)
    printed = " ".join(capsys.readouterr().out.split())
    assert "no re-ranking; protocol: camera_pairs; V2" in printed
    assert "no re-ranking; V2" in printed
    assert values[1]["test/mAP"] == pytest.approx(by_hand(module, data)["mAP"], abs=1e-6)
    assert values[0]["test/mAP"] != pytest.approx(values[1]["test/mAP"], abs=1e-3)


def test_clothes(tmp_path, module, data, capsys):
    """Those of the drawn people: of each camera their own, but of the last two."""
    data.setup("test")
    runner = trainer(tmp_path, RetrievalEvaluation(clothes="changed"))
    with pytest.raises(ValueError, match=r"evaluation.clothes=changed: the data set does not say"):
        runner.test(module, datamodule=data, verbose=False)
    data.splits = Splits(
        *([s._replace(clothes_id=min(s.camera_id, 3)) for s in split] for split in data.splits)
    )
    assert {sample.camera_id for sample in data.splits.query} == {1, 2, 3, 4}
    values = {}
    for clothes in (None, "changed", "same"):
        runner = trainer(tmp_path, RetrievalEvaluation(clothes=clothes))
        (values[clothes],) = runner.test(module, datamodule=data, verbose=False)
    assert "; clothes: changed" in " ".join(capsys.readouterr().out.split())
    assert len({round(value["test/mAP"], 4) for value in values.values()}) == 3


@pytest.mark.parametrize(
    ("kind", "stage", "label"),
    [("global", "test", "test"), ("parts", "test", "test"), ("both", "validate", "validation")],
)
def test_other_features_and_reranking(tmp_path, module, data, kind, stage, label, capsys):
    evaluation = RetrievalEvaluation(test_features=kind, rerank=True)
    runner = trainer(tmp_path, evaluation)
    (logged,) = getattr(runner, stage)(module, datamodule=data, verbose=False)
    prefix = "test" if stage == "test" else "val"
    plain = by_hand(module, data, kind)
    expected = {f"{prefix}/{name}": value for name, value in plain.items()}
    reranked = by_hand(module, data, kind, rerank=True)
    expected |= {f"{prefix}/rerank/{name}": value for name, value in reranked.items()}
    assert logged == pytest.approx(expected, abs=1e-6)
    printed = capsys.readouterr().out
    lines = [line.replace("│", " ").split() for line in printed.splitlines()]
    shown = [line[1] for line in lines if line[:1] == [label]]
    assert shown == [f"{100 * plain['mAP']:.1f}"]
    shown = [line[2] for line in lines if line[:2] == [f"{label},", "re-ranked"]]
    assert shown == [f"{100 * reranked['mAP']:.1f}"]
    caption = f"features: {kind}; re-ranked: k1 20, k2 6, lambda 0.3"
    assert caption in " ".join(printed.split())


def test_fit_evaluates_before_training_and_after_every_epoch(tmp_path, module, data, capsys):
    evaluation = RetrievalEvaluation()
    runner = trainer(tmp_path, evaluation)
    data.setup("fit")
    before = by_hand(module, data)
    runner.fit(module, datamodule=data)
    assert [values["epoch"] for values in evaluation.history] == [-1, 0, 1]
    first = {k: v for k, v in evaluation.history[0].items() if k != "epoch"}
    assert first == pytest.approx(before, abs=1e-6)
    assert runner.callback_metrics["val/mAP"].item() == pytest.approx(
        evaluation.history[-1]["mAP"], abs=1e-6
    )
    summary = json.loads((tmp_path / "lightning_logs/version_0/summary.json").read_text())
    assert summary["first"] == evaluation.history[0]
    assert summary["last"] == evaluation.history[-1]
    assert summary["history"] == evaluation.history
    assert (summary["features"], summary["reranking"]) == ("global", None)
    assert summary["tracklets"] is None
    assert summary["same_camera"] is False
    table = capsys.readouterr().out
    assert all(word in table for word in ("first (before training)", "best", "last (epoch 1)"))
    assert "features: global; no re-ranking" in table


def remembering(tmp_path, module, evaluation, *rows, features="global"):
    """A Trainer whose run remembers what a checkpoint would tell it."""
    told = [
        {"epoch": row.pop("epoch")} | {f"val/{name}": value for name, value in row.items()}
        for row in map(dict, rows)
    ]
    runner = trainer(tmp_path, evaluation)
    evaluation.setup(runner, module, "fit")
    History.of(runner).load_state_dict({"rows": told, "features": features})
    return runner


def test_the_end_of_fit_names_another_setting(tmp_path, module, capsys):
    evaluation = RetrievalEvaluation(test_features="both", rerank=True)
    rows = ({"epoch": e, "mAP": 0.1, "rerank/mAP": 0.2} for e in (-1, 0))
    evaluation.on_fit_end(remembering(tmp_path, module, evaluation, *rows), module)
    summary = json.loads((tmp_path / "lightning_logs/version_0/summary.json").read_text())
    assert summary["features"] == "both"
    assert summary["reranking"] == {"k1": 20, "k2": 6, "lambda": 0.3}
    assert summary["last"] == evaluation.history[1]
    table = capsys.readouterr().out
    assert "features: both; re-ranked" in table
    assert all(f"{row}, re-ranked" in table for row in ("training)", "(epoch 0)"))


def test_first_evaluation_can_be_left_out(tmp_path, module, data):
    evaluation = RetrievalEvaluation(before_training=False)
    trainer(tmp_path, evaluation, max_epochs=1).fit(module, datamodule=data)
    assert [values["epoch"] for values in evaluation.history] == [0]


def test_a_part_of_the_images_gives_no_metrics(tmp_path, module, data):
    runner = trainer(tmp_path, RetrievalEvaluation(), limit_val_batches=1)
    with pytest.warns(UserWarning, match=r"evaluation saw 13 of \d+ images"):
        (logged,) = runner.validate(module, datamodule=data)
    assert logged == {}


@pytest.mark.parametrize("options", [{"fast_dev_run": 2}, {"limit_val_batches": 1}])
def test_fit_on_a_part_of_the_images_records_nothing(tmp_path, module, data, options):
    evaluation = RetrievalEvaluation()
    trainer(tmp_path, evaluation, **{"max_epochs": 1, **options}).fit(module, datamodule=data)
    assert evaluation.history == []


def test_another_run_begins_with_no_history(tmp_path, module, data, capsys):
    evaluation, record = RetrievalEvaluation(), RunRecord(report=False)
    runner = trainer(tmp_path, evaluation, max_epochs=1)
    runner.validate(module, datamodule=data, verbose=False)
    assert evaluation.history == []  # of no training
    runner.fit(module, datamodule=data)
    first = evaluation.history
    assert [row["epoch"] for row in first] == [-1, 0]
    copied = deepcopy(evaluation)
    for other in (evaluation, copied):
        another = trainer(tmp_path, other, max_epochs=1)
        another.callbacks.append(record)
        another.fit(module, datamodule=data)
        assert [row["epoch"] for row in other.history] == [-1, 0]
        assert other.history[0] != first[0]
        assert [row["epoch"] for row in record.rows] == [-1, 0]
    summary = json.loads((tmp_path / "lightning_logs/version_1/summary.json").read_text())
    assert summary["history"] == evaluation.history
    assert "first (epoch 0)" not in capsys.readouterr().out


def test_evaluations_of_other_features_are_not_gone_on_with(tmp_path, module):
    evaluation = RetrievalEvaluation(test_features="both")
    remembering(tmp_path, module, evaluation, {"epoch": 3, "mAP": 0.5})
    with pytest.warns(UserWarning, match="so far compared: global; those to come compare: both"):
        evaluation.on_fit_start(None, None)
    assert evaluation.history == []


@pytest.mark.parametrize("pooled", [True, False])
def test_frames_evaluated_before_are_no_tracklets(tmp_path, module, data, pooled):
    data.setup("fit")
    data.splits = Splits(
        data.splits.train,
        *([s._replace(tracklet_id=n) for n, s in enumerate(split)] for split in data.splits[1:]),
    )
    evaluation = RetrievalEvaluation(pool_tracklets=pooled)
    runner = trainer(tmp_path, evaluation)
    runner.datamodule = data
    evaluation.setup(runner, module, "fit")
    kept = {"rows": [{"epoch": 3, "val/mAP": 0.5}], "features": "global"}
    History.of(runner).load_state_dict(kept)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        evaluation.on_fit_start(runner, module)
    told = [str(one.message) for one in caught if "those to come" in str(one.message)]
    assert ["those to come compare: global, tracklets;" in one for one in told] == [True] * pooled
    assert len(evaluation.history) == (0 if pooled else 1)
    assert evaluation.setting["tracklets"] == ("pooled" if pooled else "not pooled")


@pytest.mark.parametrize(
    ("before", "kept"), [("global", 1), ("global (V1)", 1), ("global (V2)", 0), ("parts", 0)]
)
@pytest.mark.filterwarnings("ignore:the evaluations so far")
def test_a_checkpoint_that_names_no_variant(tmp_path, module, before, kept):
    evaluation = RetrievalEvaluation()
    remembering(tmp_path, module, evaluation, {"epoch": 3, "mAP": 0.5}, features=before)
    evaluation.variant = "V1"
    evaluation.on_fit_start(None, None)
    assert len(evaluation.history) == kept


def test_evaluations_of_the_same_features_are_gone_on_with(tmp_path, module):
    evaluation = RetrievalEvaluation(test_features="parts")
    remembering(tmp_path, module, evaluation, {"epoch": 3, "mAP": 0.5}, features="parts")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        evaluation.on_fit_start(None, None)
    assert evaluation.history == [{"epoch": 3, "mAP": 0.5}]


def cells(printed: str) -> list[list[str]]:
    """The cells of the table's lines of text."""
    lines = [line.strip().replace("┃", "│") for line in printed.splitlines()]
    rows = [line.strip("│").split("│") for line in lines if line.startswith("│")]
    return [[cell.strip() for cell in row] for row in rows]


def test_plain_and_reranked_lines(capsys):
    rows = {
        "first": {"epoch": -1, "mAP": 0.25, "rank-1": 0.5},  # before re-ranking was turned on
        "last": {"epoch": 3, "mAP": 0.5, "rank-1": 0.75, "rerank/mAP": 0.625, "rerank/rank-1": 1},
    }
    RetrievalEvaluation(rerank=True).print_table(rows)
    printed = capsys.readouterr().out
    assert "re-ranked: k1 20, k2 6" in printed
    assert cells(printed) == [
        ["", "mAP", "rank-1"],
        ["first (before training)", "25.0", "50.0"],
        ["last (epoch 3)", "50.0", "75.0"],
        ["last (epoch 3), re-ranked", "62.5", "100.0"],
    ]


def test_a_rank_that_was_not_asked_for_before(capsys):
    rows = {"first": {"mAP": 0.25}, "last": {"mAP": 0.5, "rank-20": 0.75}}
    RetrievalEvaluation().print_table(rows)
    assert cells(capsys.readouterr().out)[1:] == [["first", "25.0", ""], ["last", "50.0", "75.0"]]


def test_features_that_do_not_exist():
    expected = "evaluation.test_features='all': choose one of global, parts, both"
    with pytest.raises(ValueError, match=expected):
        RetrievalEvaluation(test_features="all")


@pytest.mark.parametrize("topk", [(), (1, 0), (1, 1)])
def test_ranks_that_do_not_exist(topk):
    with pytest.raises(ValueError, match=rf"topk={re.escape(str(topk))}: give ranks of 1 or more"):
        RetrievalEvaluation(topk=topk)


def test_people_of_one_camera(tmp_path, module, drawn, capsys):
    """Query and gallery are one folder: none finds itself, and only `same_camera` finds others."""
    one = r"(?P<person>\d+)_(?P<camera>c)"
    folders = {"query": drawn / "query", "gallery": drawn / "query"}
    runs = {}
    for pattern, same_camera in ((one, True), (r"(?P<person>\d+)", False)):
        data = PPLRDataModule(
            ImageFolder(drawn / "bounding_box_train", pattern=pattern, **folders),
            image_size=(64, 32), num_workers=0,
        )  # fmt: skip
        runner = trainer(tmp_path, RetrievalEvaluation(same_camera=same_camera))
        (runs[same_camera],) = runner.validate(module, datamodule=data, verbose=False)
    assert runs[True] == runs[False]
    assert runs[True]["val/rank-1"] < 1
    assert "own camera count" in " ".join(capsys.readouterr().out.split())
    data = PPLRDataModule(ImageFolder(drawn / "bounding_box_train", pattern=one, **folders))
    with pytest.raises(ValueError, match=r"nothing can be evaluated; .* evaluation.same_camera"):
        trainer(tmp_path, RetrievalEvaluation()).validate(module, datamodule=data)


def test_too_few_images_to_rerank(tmp_path, module, data):
    data.setup("fit")
    data.splits = Splits(data.splits.train, data.splits.query[:5], data.splits.gallery[:15])
    runner = trainer(tmp_path, RetrievalEvaluation(rerank=True))
    with pytest.raises(ValueError, match=r"evaluation.rerank .* has 20 query and gallery images"):
        runner.fit(module, datamodule=data)
    assert runner.global_step == 0


def test_another_module(tmp_path):
    runner = trainer(tmp_path, RetrievalEvaluation())
    with pytest.raises(MisconfigurationException, match="RetrievalEvaluation evaluates a PPLR"):
        runner.validate(BoringModel())
