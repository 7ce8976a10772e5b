"""Where the time of an epoch goes: each stage's seconds and share, on any machine and at any size.

    python benchmarks/epoch.py --config configs/market1501.yaml --size market1501
    python benchmarks/epoch.py --config configs/demo.yaml --size tiny --trainer.max_epochs 2

Trains some epochs with the command line's `fit` and reads the clock that every run keeps
(`time/...`). The first epoch warms up and is left out where there are more. `--size` draws people
in the numbers of a data set; without it the config's data are taken. All other options are those of
`fit`: `--trainer.precision bf16-mixed --model.network.compile true` and so on. `--trace trace.json`
writes a record of some training steps of the last epoch, or with `--trace_steps 0` of the whole
epoch, for ui.perfetto.dev; it slows that epoch down.

"pure step" is forward, backward and optimiser, again and again on one batch that lies on the
device: what part of a step's time is arithmetic. "scaled" is the time of a whole training at this
speed, with an evaluation every `--every` epochs, one before them, and nothing for start-up.
"""

from __future__ import annotations

import argparse
import resource
import sys
import tempfile
from collections.abc import Sequence
from typing import Any

import torch
from lightning.pytorch import Trainer
from watching import PureStep

from pplr_lightning.callbacks import RunRecord
from pplr_lightning.commands.training import run_cli
from pplr_lightning.report.history import Row

STAGES = ("extraction", "neighbors", "jaccard", "clustering", "agreement", "centroids", "training")
# The first makes 12,957 training and 19,304 test images; Market-1501 has 12,936 and 19,281.
SIZES = {
    "market1501": {
        "train_identities": 761,
        "test_identities": 845,
        "images_per_identity": 17,
        "cameras": 4,
        "distractors": 2900,
        "junk": 2000,
    },
    "small": {
        "train_identities": 60,
        "test_identities": 30,
        "images_per_identity": 17,
        "distractors": 60,
        "junk": 40,
    },
    "tiny": {
        "train_identities": 12,
        "test_identities": 6,
        "images_per_identity": 8,
        "distractors": 4,
        "junk": 3,
    },
}


def main(arguments: Sequence[str] | None = None) -> None:
    """Trains and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], allow_abbrev=False)
    parser.add_argument("--size", choices=list(SIZES), help="draws people in these numbers")
    parser.add_argument("--root", default="data/drawn", help="where they are drawn")
    parser.add_argument("--pure_steps", type=int, default=20)
    parser.add_argument("--scale", type=int, default=50, help="epochs of the whole training")
    parser.add_argument("--every", type=int, default=5, help="epochs between evaluations")
    parser.add_argument("--trace", help="file to write a trace into")
    parser.add_argument("--trace_steps", type=int, default=5)
    options, rest = parser.parse_known_args(sys.argv[1:] if arguments is None else arguments)
    with tempfile.TemporaryDirectory() as folder:
        cli = run_cli(["fit", *_arguments(options, rest, folder)])
    print(report(cli.trainer, options))


def _arguments(options: argparse.Namespace, rest: Sequence[str], folder: str) -> list[str]:
    added = []
    if options.size is not None:
        added += ["--data.dataset=pplr_lightning.data.SyntheticReID"]
        added += [
            f"--data.dataset.init_args.{name}={value}"
            for name, value in {
                "root": f"{options.root}/{options.size}",
                **SIZES[options.size],
            }.items()
        ]
    if options.trace is not None:
        added += [
            "--trainer.callbacks+=watching.Trace",
            f"--trainer.callbacks.path={options.trace}",
            f"--trainer.callbacks.steps={options.trace_steps}",
        ]
    # --config first: later options are laid over it.
    return [
        *_with_config(rest, first=True),
        "--figures.names=[]",
        "--record.report=false",
        f"--trainer.logger.init_args.save_dir={folder}",
        *_with_config(rest, first=False),
        *added,
        "--trainer.callbacks+=watching.PureStep",
        f"--trainer.callbacks.steps={options.pure_steps}",
    ]


def _with_config(rest: Sequence[str], *, first: bool) -> list[str]:
    """The words of `--config`, or the others."""
    words, kept, take = list(rest), [], False
    for word in words:
        is_config = take or word.startswith("--config=") or word == "--config"
        take = word == "--config"
        if is_config == first:
            kept.append(word)
    return kept


def report(trainer: Trainer, options: argparse.Namespace) -> str:
    """Makes the tables of a finished run."""
    record = next(c for c in trainer.callbacks if isinstance(c, RunRecord))
    pure = next(c for c in trainer.callbacks if isinstance(c, PureStep)).seconds
    data: Any = trainer.datamodule
    every = [row for row in record.rows if "time/training" in row]
    rows = every[1:] or every  # the first warms up
    seconds = {stage: _mean(rows, f"time/{stage}") for stage in STAGES}
    evaluation = _mean([row for row in rows if "time/evaluation" in row], "time/evaluation")
    step = seconds["training"] / data.iterations
    epoch = sum(seconds.values()) + evaluation / options.every
    train = len(data.train_samples)
    test = len(data.splits.query) + len(data.splits.gallery)
    images = {"extraction": train, "training": data.iterations * data.batch_size}
    lines = [
        f"{_device()}; {data.batch_size} images of {data.image_size[0]} x {data.image_size[1]} a "
        f"step, {data.iterations} steps an epoch; {train} training and {test} test images; "
        f"mean of {len(rows)} epoch{'s' if len(rows) > 1 else ''}",
        "",
        "| stage | s | % of an epoch | images/s |",
        "|---|---|---|---|",
    ]
    for stage in STAGES:
        speed = f"{images[stage] / seconds[stage]:.0f}" if stage in images else ""
        share = f"{100 * seconds[stage] / epoch:.1f}"
        lines.append(f"| {stage} | {seconds[stage]:.3f} | {share} | {speed} |")
    if evaluation:
        share = f"{100 * evaluation / options.every / epoch:.1f}"
        lines.append(f"| evaluation | {evaluation:.3f} | {share} | {test / evaluation:.0f} |")
    labels = sum(seconds[stage] for stage in STAGES[1:-1])
    scaled = options.scale * epoch + evaluation
    lines += [
        "",
        f"labels after extraction: {labels:.3f} s; a step {1000 * step:.1f} ms, the pure step "
        f"{1000 * pure:.1f} ms: {100 * pure / step:.1f} %",
        f"scaled: {options.scale} epochs with an evaluation every {options.every} in "
        f"{scaled / 60:.1f} min",
        f"peak memory: {_host_memory()}{_device_memory()}",
    ]
    return "\n".join(lines)


def _mean(rows: list[Row], name: str) -> float:
    return sum(row.get(name, 0.0) for row in rows) / max(1, len(rows))


def _device() -> str:
    name = torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU"
    return f"{name}, {torch.get_num_threads()} CPU threads, torch {torch.__version__}"


def _host_memory() -> str:
    unit = 2**30 if sys.platform == "darwin" else 2**20
    return f"{resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit:.2f} GiB of the process"


def _device_memory() -> str:
    if not torch.cuda.is_available():
        return ""
    return f", {torch.cuda.max_memory_allocated() / 2**30:.2f} GiB on the GPU"


if __name__ == "__main__":
    main()
