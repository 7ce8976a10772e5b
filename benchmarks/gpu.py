"""Runs the tests and the benchmarks that need a GPU, and writes what they print as Markdown.

    python benchmarks/gpu.py --plan short --minutes 8 --out build/benchmark-gpu.md
    python benchmarks/gpu.py --plan full
    python benchmarks/gpu.py --dry_run    # on the CPU, at sizes of seconds: does every command run?

With the interpreter that it is run with, whether the library is installed or not; nothing is
installed or downloaded. A plan's parts stand in order of worth. Each is a process of its own with a
limit, and all end within `--minutes`: a part that fails, or takes longer than its limit or than
what is left, is noted with what it has printed, and the others go on. Everything is in the file as
soon as it is printed.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple, TextIO

import torch

ROOT = Path(__file__).resolve().parents[1]


class Part(NamedTuple):
    """A command of Python, with a limit in seconds, and what it takes to run it on the CPU."""

    seconds: int
    words: list[str]
    tiny: list[str]


class Plan(NamedTuple):
    """Parts in order of worth, and the minutes that they take if nobody says otherwise."""

    minutes: float
    parts: list[Part]


def labels(seconds: int, images: int) -> Part:
    """The label stage on drawn features of ResNet-50's size."""
    words = ["benchmarks/labels.py", "--ranks=1", "--no-dense", "--dim=2048", "--parts=3"]
    return Part(seconds, [*words, f"--images={images}"], ["--images=300", "--dim=16"])


def step(seconds: int, *options: str) -> Part:
    """Each option of the training step alone."""
    tiny = ["--device=cpu", "--backbone=resnet10t", "--batch=8", "--group=8", "--steps=4"]
    return Part(
        seconds,
        ["benchmarks/step.py", "--device=cuda", *options],
        [*tiny, "--image_size", "64", "32", "--no-compile"],
    )


def epoch(seconds: int, epochs: int, *options: str) -> Part:
    """Epochs at Market-1501's size, on drawn people; evaluated after the last."""
    words = [
        "benchmarks/epoch.py", "--config=configs/market1501.yaml", "--size=market1501",
        "--model.network.weights=null", "--trainer.devices=1", f"--trainer.max_epochs={epochs}",
        f"--trainer.check_val_every_n_epoch={epochs}", "--trainer.callbacks=[]",
    ]  # fmt: skip
    tiny = [
        "--size=tiny", "--model.network.backbone=resnet10t", "--data.image_size=[64,32]",
        "--model.network.norm_batch_size=8", "--model.network.compile=false",
        "--model.agreement_k=4", "--data.batch_size=16", "--data.iterations=2",
        "--data.num_workers=0", "--pseudo_labels.labeler.k1=6", "--pseudo_labels.labeler.k2=2",
        "--pseudo_labels.labeler.min_samples=2", "--trainer.accelerator=cpu",
        "--trainer.precision=32-true",
    ]  # fmt: skip
    return Part(seconds, [*words, *options], tiny)


TESTS = Part(
    120, ["-m", "pytest", "-q", "-m", "gpu", "-p", "no:cacheprovider"], ["--co", "tests/methods"]
)
VIT = ["--model.network.backbone=vit_small_patch16_224.dino", "--model.network.last_stride=2"]
BF16, LAYOUT, COMPILED = (
    "--trainer.precision=bf16-mixed",
    "--model.network.channels_last=true",
    "--model.network.compile=true",
)
PLANS = {
    "short": Plan(
        8,
        [
            labels(50, 12936),
            labels(60, 32621),
            epoch(150, 2, BF16, LAYOUT),
            step(120),
            TESTS,
        ],
    ),
    "full": Plan(
        60,
        [
            labels(120, 12936),
            labels(120, 32621),
            step(600),
            step(600, "--backbone=vit_small_patch16_224.dino", "--last_stride=2"),
            TESTS._replace(seconds=600),
            epoch(600, 3),
            epoch(600, 3, BF16),
            epoch(600, 3, BF16, LAYOUT),
            epoch(600, 3, BF16, LAYOUT, COMPILED),
            epoch(600, 3, BF16, LAYOUT, COMPILED, "--trace=build/steps.json"),
            epoch(600, 3, BF16, LAYOUT, COMPILED, *VIT),
        ],
    ),
}


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs a plan."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--plan", choices=PLANS, default="short")
    parser.add_argument("--minutes", type=float, help="for all of it; else 8, of the full plan 60")
    parser.add_argument("--out", type=Path, default=Path("build/benchmark-gpu.md"))
    parser.add_argument("--dry_run", action="store_true", help="on the CPU, at tiny sizes")
    options = parser.parse_args(arguments)
    if not options.dry_run and not torch.cuda.is_available():
        sys.exit("there is no CUDA device: nothing to measure; --dry_run tries the commands out")
    plan = PLANS[options.plan]
    end = time.monotonic() + 60 * (options.minutes or plan.minutes)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    with options.out.open("w", encoding="utf-8") as file:
        name = "CPU, a dry run" if options.dry_run else torch.cuda.get_device_name()
        say(f"{name}, torch {torch.__version__}, Python {sys.version.split()[0]}\n", file)
        for part in plan.parts:
            words = [*part.words, *(part.tiny if options.dry_run else [])]
            left = end - time.monotonic()
            limit = left if options.dry_run else min(part.seconds, left)
            say(f"```bash\npython {' '.join(words)}\n```\n", file)
            before = options.out.stat().st_size
            ending = run(words, limit, file) if limit > 1 else "left out: no time is left\n"
            print(options.out.read_bytes()[before:].decode(errors="replace"), flush=True)
            say(ending, file)


def run(words: Sequence[str], limit: float, file: TextIO) -> str:
    """Has a command of Python print into a file; returns how it ended, if not well.

    What it has started ends with it.
    """
    paths = [str(ROOT / "src"), str(ROOT / "benchmarks"), os.environ.get("PYTHONPATH", "")]
    with tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as errors:
        process = subprocess.Popen(
            [sys.executable, "-u", *words],
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))},
            stdout=file,
            stderr=errors,
            start_new_session=True,
        )
        try:
            code = process.wait(timeout=limit)
        except subprocess.TimeoutExpired:
            return f"\nstopped after {limit:.0f} s\n"
        finally:
            with contextlib.suppress(ProcessLookupError):  # nothing of it is left
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        errors.seek(0)
        return f"\nended with {code}: {errors.read().strip()[-2000:]}\n" if code else ""


def say(text: str, file: TextIO) -> None:
    """Prints and writes."""
    for place in (sys.stdout, file):
        print(text, file=place, flush=True)


if __name__ == "__main__":
    main()
