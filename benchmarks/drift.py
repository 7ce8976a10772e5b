"""How far float32 runs drift apart: other numbers of processes beside other orders of summation.

    python benchmarks/drift.py --epochs 3 --seeds 4

Trains on a small drawn set, in one process, and again in one process with sums in another order
(two threads; kernels for processors of another instruction set), and in two and four processes.
Prints the largest relative difference of `train/loss` from the first of these runs, so far, as the
median over seeds and the largest of them.
"""

from __future__ import annotations

import argparse
import csv
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from itertools import accumulate
from pathlib import Path
from statistics import median

from pplr_lightning.data import SyntheticReID

ROOT = Path(__file__).parents[1]
PLAIN = {"ATEN_CPU_CAPABILITY": "default", "ONEDNN_MAX_CPU_ISA": "SSE41"}
RUNS: dict[str, tuple[int, dict[str, str]]] = {  # processes, environment
    "one process": (1, {}),
    "one process, two threads": (1, {"OMP_NUM_THREADS": "2"}),
    "one process, other kernels": (1, PLAIN),
    "two processes": (2, {}),
    "four processes": (4, {}),
}
STEPS = 20


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs all and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--seeds", type=int, default=4)
    options = parser.parse_args(arguments)
    drifts: dict[str, list[list[float]]] = {name: [] for name in list(RUNS)[1:]}
    with tempfile.TemporaryDirectory() as folder:
        SyntheticReID(
            f"{folder}/set", train_identities=12, test_identities=6, images_per_identity=8,
            image_size=(64, 32),
        ).prepare()  # fmt: skip
        for seed in range(options.seeds):
            first, *others = (
                train(Path(folder), f"run-{seed}-{number}", run, options.epochs, seed)
                for number, run in enumerate(RUNS.values())
            )
            for drift, losses in zip(drifts.values(), others, strict=True):
                apart = (abs(a / b - 1) for a, b in zip(losses, first, strict=True))
                drift.append(list(accumulate(apart, max)))
    steps = [1, *range(STEPS, options.epochs * STEPS + 1, STEPS)]
    print("| up to step |" + "".join(f" {step} |" for step in steps))
    print("|---|" + "---|" * len(steps))
    for name, drift in drifts.items():
        cells = [sorted(seed[step - 1] for seed in drift) for step in steps]
        print(f"| {name} |" + "".join(f" {median(c):.1e}, {c[-1]:.1e} |" for c in cells))


def train(
    folder: Path, name: str, run: tuple[int, dict[str, str]], epochs: int, seed: int
) -> list[float]:
    """Trains and returns the loss of every step."""
    processes, environment = run
    options = {
        "config": ROOT / "configs/demo.yaml",
        "seed_everything": seed,
        "data.dataset": "pplr_lightning.data.MarketLayout",
        "data.dataset.init_args.root": folder / "set",
        "data.batch_size": 16,
        "data.iterations": STEPS,
        "data.num_workers": 0,
        "model.network.norm_batch_size": 8,
        "model.max_clusters": 64,
        "pseudo_labels.labeler.k1": 6,
        "pseudo_labels.labeler.k2": 2,
        "model.agreement_k": 4,
        "pseudo_labels.labeler.min_samples": 2,
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
        env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
    )
    with (folder / "demo" / name / "metrics.csv").open() as file:
        return [float(row["train/loss"]) for row in csv.DictReader(file) if row["train/loss"]]


if __name__ == "__main__":
    main()
