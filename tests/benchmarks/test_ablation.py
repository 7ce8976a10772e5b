from __future__ import annotations

from types import SimpleNamespace

import ablation as benchmark
import pytest
import torch
from torch import nn

from pplr_lightning.callbacks.shared import History
from pplr_lightning.data import Sample
from pplr_lightning.data.pseudo_labels import PseudoLabels

from ..conftest import run_options


def test_prints_rows_and_courses_and_goes_on(drawn, tmp_path, capsys):
    options = [*run_options(drawn, tmp_path), "--trainer.max_epochs=1", "--data.iterations=1"]
    arguments = ["--rows", "neither", "AALS and PGLR", "--seeds", "2", f"--runs={tmp_path}"]
    benchmark.main([*arguments, *options])
    printed = capsys.readouterr().out
    rows = [line for line in printed.splitlines() if line.startswith("| ")][1:]
    assert [row.split(" | ")[0] for row in rows] == ["| neither", "| AALS and PGLR"]
    for title in benchmark.COURSES:
        first, second = printed.partition(f"\n{title}, by epoch")[2].splitlines()[1:3]
        assert [len(line.split()) for line in (first, second)] == [2, 4]  # its name and one epoch
    config = (tmp_path / "runs/neither-2/config.yaml").read_text()
    assert "aals: false" in config
    assert "pglr: false" in config
    benchmark.main([*arguments, *options])  # trains nothing
    again = capsys.readouterr().out
    assert again[again.index("| | before") :] == printed[printed.index("| | before") :]


def test_how_often_the_heads_are_right():
    """Clusters 0 (persons 5, 5, 7) and 1 (7, 7); image 2 is in the wrong one, image 5 in none."""
    persons = [5, 5, 7, 7, 7, 5]
    classes = torch.tensor([0, 0, 0, 1, 1, -1])
    module = SimpleNamespace(
        classifier=nn.Identity(),
        part_classifiers=[nn.Identity(), nn.Identity()],
    )
    samples = [Sample("", person, 0) for person in persons]
    data = SimpleNamespace(train_samples=samples, pseudo_labels=PseudoLabels(classes))
    trainer = SimpleNamespace(datamodule=data, callbacks=[], sanity_checking=False, current_epoch=0)
    indices = torch.tensor([0, 2, 3, 4])
    agreement = torch.tensor([[1.0, 0], [0, 1], [0, 1], [0, 1]])  # image 0 by its first part
    columns = {"agreement": agreement}
    batch = SimpleNamespace(indices=indices, targets=classes[indices], columns=columns)
    callback = benchmark.HeadAccuracy()
    callback.on_fit_start(trainer, module)
    for step in range(2):
        callback.on_train_batch_start(trainer, module, batch, step)
        module.classifier(torch.eye(2)[[0, 1, 1, 0]])  # names image 2's person, not its cluster
        module.part_classifiers[0](torch.eye(2)[[0, 0, 1, 1]])  # all clusters
        module.part_classifiers[1](torch.eye(2)[[1, 1, 0, 0]])  # none of them
        callback.on_train_batch_end(trainer, module, None, batch, step)
    assert History.of(trainer).rows[0] == pytest.approx(
        {
            "epoch": 0,
            "accuracy/global": 0.5,
            "accuracy/global_truth": 0.75,
            "accuracy/parts": 0.5,
            "accuracy/parts_truth": (0.75 + 0.25) / 2,
            "accuracy/labels_truth": 0.75,
            "accuracy/righted": 0.25,  # image 2
            "accuracy/wronged": 0.5,  # images 3 and 4
        }
    )
    callback.on_fit_end(trainer, module)
    module.classifier(torch.eye(2))
    assert len(callback.logits) == 3
