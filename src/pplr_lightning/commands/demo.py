"""`demo`: PPLR on drawn people, from ImageNet's weights, in minutes on two CPU cores."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import cast

from pplr_lightning.callbacks import RetrievalEvaluation
from pplr_lightning.callbacks.shared import find, run_folder
from pplr_lightning.commands.training import PPLRCLI, run_cli
from pplr_lightning.networks import PartNetwork
from pplr_lightning.report.bounded_yaml import load_bounded
from pplr_lightning.weights.packaged import imagenet_mobilenetv2

# Installed they are files of the package; in a checkout a link leads to those at its top.
CONFIGS = (Path(__file__).parents[1] / "configs").resolve()


def run(args: list[str]) -> dict[str, dict[str, float]]:
    """Runs the demo with the commands a user would type, and prints what each step brought.

    Random weights; the weights to start from, ImageNet's; after PPLR on people without identities
    and without camera ids. All three are evaluated on the same query and gallery.

    Returns:
        The metrics of each stage; after PPLR those of the last epoch.
    """
    options = _parse(args)
    if options.runs.is_file():
        raise NotADirectoryError(f"--runs {options.runs}: is a file; name a folder")
    if options.weights is not None and not options.weights.is_file():  # before minutes of work
        raise FileNotFoundError(f"--weights {options.weights}: no such file")
    weights = options.weights or imagenet_mobilenetv2()
    if options.weights is not None:
        _check_weights(options.configs / "demo.yaml", options.weights)
    start = f"weights of {weights.name}" if options.weights else "ImageNet's weights"
    shared = [
        f"--config={options.configs / 'demo.yaml'}",
        f"--seed_everything={options.seed}",
        f"--trainer.logger.save_dir={options.runs}",
    ]
    random = _call("validate", *shared, f"--trainer.logger.version=random-{options.seed}")
    pplr = _call(
        "fit",
        *shared,
        f"--trainer.logger.version=pplr-{options.seed}",
        f"--model.network.weights={weights}",
    )
    evaluation = cast(RetrievalEvaluation, find(pplr.trainer, RetrievalEvaluation))
    before = {name: value.item() for name, value in random.trainer.callback_metrics.items()}
    first, *_, last = evaluation.history
    rows = {
        stage: {name.removeprefix("val/"): values[name] for name in values if name != "epoch"}
        for stage, values in (("random weights", before), (start, first), ("after PPLR", last))
    }
    evaluation.print_table(rows)
    print(f"PPLR's log, config and checkpoint are in {run_folder(pplr.trainer)}")
    return rows


def _check_weights(config: Path, weights: Path) -> None:
    """Builds the network of a config with weights, which says what is wrong with them."""
    options = load_bounded(config.read_text(encoding="utf-8"))["model"]["init_args"]["network"]
    PartNetwork(**{**options, "weights": str(weights)})


def _call(*words: str) -> PPLRCLI:
    print(f"\n$ python -m pplr_lightning {' '.join(words)}", flush=True)
    return run_cli(list(words))


def _parse(args: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser("python -m pplr_lightning demo", description=__doc__)
    parser.add_argument("--configs", type=Path, default=CONFIGS, help="folder of configs")
    parser.add_argument("--runs", type=Path, default=Path("runs"), help="folder of results")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--weights",
        type=Path,
        help="what to start from, such as a checkpoint; ImageNet's, if left out",
    )
    return parser.parse_args(args)
