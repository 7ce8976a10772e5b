"""How far float32 runs drift apart: other numbers of processes beside another order of summation.

    python benchmarks/drift.py --epochs 3

Trains on a small drawn set, in one process with one thread and with two (whose sums run in another
order), and in two and four processes. Prints the largest relative difference of `train/loss` from
the first of these runs, so far.
"""

from __future__ import annotations

import argparse
import csv
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from pplr_lightning.data import SyntheticReID

ROOT = Path(__file__).parents[1]
RUNS = {
    "one process": (1, 1),
    "one process, two threads": (1, 2),
    "two processes": (2, 1),
    "four processes": (4, 1),
}
STEPS = 20


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs all and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--epochs", type=int, default=3)
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as folder:
        SyntheticReID(
            f"{folder}/set", train_identities=12, test_identities=6, images_per_identity=8,
            image_size=(64, 32),
        ).prepare()  # fmt: skip
        losses = {
            name: train(Path(folder), f"run-{number}", processes, threads, options.epochs)
            for number, (name, (processes, threads)) in enumerate(RUNS.items())
        }
    first = losses["one process"]
    steps = [1, *range(STEPS, len(first) + 1, STEPS)]
    print("| up to step |" + "".join(f" {step} |" for step in steps))
    print("|---|" + "---|" * len(steps))
    for name, found in list(losses.items())[1:]:
        differences = [abs(a / b - 1) for a, b in zip(found, first, strict=True)]
        print(f"| {name} |" + "".join(f" {max(differences[:step]):.1e} |" for step in steps))


def train(folder: Path, name: str, processes: int, threads: int, epochs: int) -> list[float]:
    """Trains and returns the loss of every step."""
    options = {
        "config": ROOT / "configs/demo.yaml",
        "data.dataset": "pplr_lightning.data.MarketLayout",
        "data.dataset.init_args.root": folder / "set",
        "data.batch_size": 16,
        "data.iterations": STEPS,
        "data.num_workers": 0,
        "model.norm_batch_size": 8,
        "model.max_clusters": 64,
        "pseudo_labels.k1": 6,
        "pseudo_labels.k2": 2,
        "pseudo_labels.agreement_k": 4,
        "pseudo_labels.min_samples": 2,
        "trainer.max_epochs": epochs,
        "trainer.log_every_n_steps": 1,
        "trainer.devices": processes,
        "trainer.strategy": "ddp" if processes > 1 else "auto",
        "trainer.logger.init_args.save_dir": folder,
        "trainer.logger.init_args.version": name,
        "trainer.callbacks": "[]",
        "trainer.enable_progress_bar": "false",
    }
    words = [f"--{option}={value}" for option, value in options.items()]
    subprocess.run(
        [sys.executable, "-m", "pplr_lightning", "fit", *words],
        check=True,
        capture_output=True,
        env={**os.environ, "OMP_NUM_THREADS": str(threads)},
    )
    with (folder / "demo" / name / "metrics.csv").open() as file:
        return [float(row["train/loss"]) for row in csv.DictReader(file) if row["train/loss"]]


if __name__ == "__main__":
    main()
