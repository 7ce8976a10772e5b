"""Runs the tests and all benchmarks that need a GPU, and writes what they print as Markdown.

    python benchmarks/gpu.py --out build/benchmark-gpu.md

Each benchmark is a process of its own; one that fails is noted, the others go on.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import torch

FAST = [
    "--trainer.precision=bf16-mixed", "--model.network.channels_last=true",
    "--model.network.compile=true",
]  # fmt: skip
EPOCH = [
    "benchmarks/epoch.py", "--config=configs/market1501.yaml", "--size=market1501",
    "--model.network.weights=null", "--trainer.devices=1", "--trainer.max_epochs=3",
    "--trainer.check_val_every_n_epoch=3", "--trainer.callbacks=[]",
]  # fmt: skip
VIT = ["--model.network.backbone=vit_small_patch16_224.dino", "--model.network.last_stride=2"]
LABELS = ["benchmarks/labels.py", "--ranks=1", "--no-dense", "--dim=2048", "--parts=3"]
COMMANDS = [
    ["-m", "pytest", "-q", "-m", "gpu"],
    ["benchmarks/step.py", "--device=cuda"],
    ["benchmarks/step.py", "--device=cuda", "--backbone=vit_small_patch16_224.dino",
     "--last_stride=2"],
    [*LABELS, "--images=12936"],
    [*LABELS, "--images=32621"],
    EPOCH,
    [*EPOCH, FAST[0]],
    [*EPOCH, *FAST[:2]],
    [*EPOCH, *FAST],
    [*EPOCH, *FAST, "--trace=build/steps.json"],
    [*EPOCH, *FAST, *VIT],
]  # fmt: skip


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs all commands."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("build/benchmark-gpu.md"))
    options = parser.parse_args(arguments)
    if not torch.cuda.is_available():
        sys.exit("there is no CUDA device: nothing to measure")
    options.out.parent.mkdir(parents=True, exist_ok=True)
    with options.out.open("w", encoding="utf-8") as file:
        for words in COMMANDS:
            text = f"```bash\npython {' '.join(words)}\n```\n\n{run(words)}\n"
            print(text, flush=True)
            file.write(text)
            file.flush()


def run(words: Sequence[str]) -> str:
    """Returns what a command of Python printed, or the end of its error."""
    done = subprocess.run([sys.executable, *words], capture_output=True, text=True)
    if done.returncode:
        return (
            f"failed with {done.returncode}: {done.stderr.strip()[-2000:]}\n{done.stdout[-2000:]}"
        )
    return done.stdout


if __name__ == "__main__":
    main()
