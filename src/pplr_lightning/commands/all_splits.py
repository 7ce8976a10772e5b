"""`test` over all splits of a data set that is reported as mean and deviation."""

from __future__ import annotations

import json
import statistics
from typing import Any, cast

from lightning.pytorch import Trainer
from lightning.pytorch.utilities import rank_zero_info

from pplr_lightning.atomic_write import write_whole
from pplr_lightning.callbacks import RetrievalEvaluation
from pplr_lightning.callbacks.shared import find, run_folder
from pplr_lightning.data import PPLRDataModule
from pplr_lightning.data.random_splits import SplitDataset


def over_all_splits(trainer: Trainer, datamodule: PPLRDataModule, **options: Any) -> None:
    """Tests one model on each split; prints mean and standard deviation, writes `splits.json`.

    The deviation is that of a sample (over n - 1). The file also says what `summary.json` says of
    the setting. A model must not have been trained on any of the splits: they share people.

    Args:
        trainer: Whose `test` is called.
        datamodule: Of a `SplitDataset` with the split `all`.
        options: Further ones of `test`.
    """
    dataset = cast(SplitDataset, datamodule.dataset)
    rows = []
    for split in range(dataset.num_splits):
        dataset.split = split
        datamodule.splits = None
        (values,) = trainer.test(datamodule=datamodule, **options)
        rows.append({name.removeprefix("test/"): value for name, value in values.items()})
    dataset.split = "all"
    columns = {name: [row[name] for row in rows] for name in rows[0]}
    mean = {name: statistics.mean(column) for name, column in columns.items()}
    deviation = {name: statistics.stdev(column) for name, column in columns.items()}
    evaluation = find(trainer, RetrievalEvaluation)
    setting = {}
    if evaluation is not None:
        evaluation.variant = f"all {len(rows)} splits"
        setting = evaluation.setting
        title = f"mean of {len(rows)} splits"
        evaluation.print_table({title: mean, "standard deviation": deviation})
    if trainer.is_global_zero:
        path = run_folder(trainer) / "splits.json"
        found = {"mean": mean, "deviation": deviation, "splits": rows}
        text = json.dumps({"data_set": dataset.name, **setting, **found}, indent=2)
        write_whole(path, text + "\n")
        rank_zero_info(f"all splits are in {path}")
