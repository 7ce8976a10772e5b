"""`demo`: from random weights to PPLR on drawn people, in minutes on two CPU cores."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import cast

from pplr_lightning.callbacks import RetrievalEvaluation
from pplr_lightning.callbacks.shared import find, run_folder
from pplr_lightning.commands.training import PPLRCLI, run_cli

# Installed they are files of the package; in a checkout a link leads to those at its top.
CONFIGS = (Path(__file__).parents[1] / "configs").resolve()
STAGES = ("random weights", "after the warm start", "after PPLR")


def run(args: list[str]) -> dict[str, dict[str, float]]:
    """Runs the demo's trainings with the commands a user would type, and prints what each brought.

    Random weights; a supervised warm start on *other* drawn people; PPLR on people without
    identities. All three are evaluated on the same query and gallery.

    Returns:
        The metrics of each stage, the last epoch of each training.
    """
    options = _parse(args)
    shared = [f"--seed_everything={options.seed}", f"--trainer.logger.save_dir={options.runs}"]
    target = ["--config", str(options.configs / "demo.yaml"), *shared]
    source = ["--config", str(options.configs / "demo_pretrain.yaml"), *shared]

    random = _call("validate", *target, f"--trainer.logger.version=random-{options.seed}")
    warm = _call("fit", *source, f"--trainer.logger.version=pretrain-{options.seed}")
    checkpoint = run_folder(warm.trainer) / "checkpoints" / "last.ckpt"
    pplr = _call(
        "fit",
        *target,
        f"--trainer.logger.version=pplr-{options.seed}",
        f"--model.network.weights={checkpoint}",
    )
    evaluation = cast(RetrievalEvaluation, find(pplr.trainer, RetrievalEvaluation))
    before = {name: value.item() for name, value in random.trainer.callback_metrics.items()}
    first, *_, last = evaluation.history
    rows = {
        stage: {name.removeprefix("val/"): values[name] for name in values if name != "epoch"}
        for stage, values in zip(STAGES, (before, first, last), strict=True)
    }
    evaluation.print_table(rows)
    print(f"PPLR's log, config and checkpoint are in {run_folder(pplr.trainer)}")
    return rows


def _call(*words: str) -> PPLRCLI:
    print(f"\n$ python -m pplr_lightning {' '.join(words)}", flush=True)
    return run_cli(list(words))


def _parse(args: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser("python -m pplr_lightning demo", description=__doc__)
    parser.add_argument("--configs", type=Path, default=CONFIGS, help="folder of configs")
    parser.add_argument("--runs", type=Path, default=Path("runs"), help="folder of results")
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args(args)
