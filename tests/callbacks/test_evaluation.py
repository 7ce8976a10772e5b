from __future__ import annotations

import json

import pytest
import torch
from lightning.pytorch import Trainer
from lightning.pytorch.loggers import CSVLogger

from pplr_lightning import PPLRDataModule, PPLRModule, PseudoLabeling, RetrievalEvaluation
from pplr_lightning.callbacks.evaluation import summarize
from pplr_lightning.data import Market1501
from pplr_lightning.functional import retrieval_metrics


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
    return PPLRModule("resnet10t", pretrained=False, norm_batch_size=8, max_clusters=60)


def trainer(tmp_path, evaluation, **options):
    labeling = PseudoLabeling(k1=6, k2=2, agreement_k=4, eps=0.6, min_samples=2)
    return Trainer(
        accelerator="cpu",
        logger=CSVLogger(tmp_path),
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,
        callbacks=[labeling, evaluation],
        **{"max_epochs": 2, **options},
    )


def by_hand(module, data):
    module.eval()
    samples = data.splits.query + data.splits.gallery
    with torch.no_grad():
        features = torch.cat([module(batch.images) for batch in data.val_dataloader()])
    module.train()
    persons = torch.tensor([sample.person_id for sample in samples])
    cameras = torch.tensor([sample.camera_id for sample in samples])
    queries = len(data.splits.query)
    distance = 2 - 2 * features[:queries] @ features[queries:].T
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
    assert "mAP" in capsys.readouterr().out


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
    table = capsys.readouterr().out
    assert all(word in table for word in ("first (before training)", "best", "last (epoch 1)"))


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


def test_best_is_by_map():
    history = [{"epoch": e, "mAP": value} for e, value in enumerate((0.1, 0.4, 0.3))]
    summary = summarize(history)
    assert [summary[name]["epoch"] for name in ("first", "best", "last")] == [0, 1, 2]


def test_history_survives_a_checkpoint():
    evaluation, other = RetrievalEvaluation(), RetrievalEvaluation()
    evaluation.history.append({"epoch": 3, "mAP": 0.5})
    other.load_state_dict(evaluation.state_dict())
    assert other.history == evaluation.history
