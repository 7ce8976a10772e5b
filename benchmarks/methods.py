"""The methods beside each other: each trained from the same start, for as many images.

    python benchmarks/methods.py --root data/Market-1501-v15.09.15 --seeds 0 1 2

On a set in the layout of Market-1501. Prints, as mean and standard deviation over the seeds, mAP
and rank-1 of the last epoch (none is selected), its clusters and share of outliers, the seconds of
labels and training, and the most memory of the process (from /proc: Linux only). Of SpCL and RLCC
single images are clusters, too; they are counted beside the others. Identities are used for the
evaluation alone; methods that are named "with cameras" use camera ids in their losses.

It is fit for one CPU thread. Of a method's published config this is changed:

- `configs/overlays/cpu.yaml`: MobileNetV2 of ImageNet's weights, images of 128 x 64, padded by 5;
  two parts where the method has parts;
- the length: `--epochs`, each of `--images` images. Batches are the published ones, so that their
  number differs; MMT and ICE see two and three views of each image, by more than one network, and
  IICS's batches are of 8 images of each camera in every second epoch;
- of DCMIP's two trainings it is the second, at once;
- the precision: float32;
- the evaluation: before training and after the last epoch;
- what is counted in epochs, in proportion to the length: the step or warm-up of the learning rate,
  when AALS starts, and how fast IICS's scores lose their weight.

All else, the learning rate and eps among it, is as published for Market-1501 with a ResNet-50, and
tuned for none of them here. Arguments that are not the script's go to `fit`, for every method. A
run goes on where it was stopped, and one that has ended (its summary.json is there) is not run
again. All methods of a seed come before the next seed. One that ends with an error is told of, and
the others go on.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback
from measuring import forget_peak, memory
from omegaconf import OmegaConf
from rows import Run, row_parser, spread, train

from pplr_lightning.callbacks.shared import History
from pplr_lightning.report.history import working_times
from pplr_lightning.weights.packaged import imagenet_mobilenetv2

CONFIGS = Path(__file__).parents[1] / "configs"
METHODS = {
    "PPLR's baseline": ["market1501", "ablation/baseline"],
    "PPLR": ["market1501"],
    "PPLR with cameras": ["market1501", "overlays/cameras"],
    "Cluster Contrast": ["cluster_contrast_market1501"],
    "ISE": ["ise_market1501"],
    "DCMIP": ["dcmip_market1501", "overlays/dcmip_instances"],
    "SpCL": ["spcl_market1501"],
    "RLCC": ["rlcc_market1501"],
    "MMT": ["mmt_market1501"],
    "ICE": ["ice_market1501"],
    "ICE with cameras": ["ice_market1501", "overlays/ice_cameras"],
    "IICS with cameras": ["iics_market1501"],
}
# Options that count epochs.
IN_EPOCHS = (
    "lr_scheduler.init_args.step_size",
    "lr_scheduler.init_args.total_iters",
    "model.init_args.aals_start_epoch",
    "pseudo_labels.labeler.init_args.rounds",
)
PEAK = "memory/peak"  # MiB


class Peak(Callback):
    """Writes the most memory that the process has held into the history."""

    def on_train_batch_end(self, trainer: Any, *_: Any) -> None:
        """After labels and steps."""
        if trainer.is_last_batch:
            self._write(trainer)

    def on_validation_end(self, trainer: Any, pl_module: Any) -> None:
        """After an evaluation."""
        self._write(trainer)

    def _write(self, trainer: Any) -> None:
        History.of(trainer).row(trainer)[PEAK] = memory("VmHWM")


def arguments(
    name: str, root: str, weights: str, *, epochs: int, images: int, **given: Any
) -> Iterator[str]:
    """Gives the arguments of `fit` for a method.

    Args:
        name: The method.
        root: Folder of the data.
        weights: What all start from.
        epochs: Of the training.
        images: Of an epoch, a multiple of the method's batch size.
        given: Not used.
    """
    files = [CONFIGS / f"{file}.yaml" for file in METHODS[name]]
    published: Any = OmegaConf.merge(*map(OmegaConf.load, files))
    batch_size, network = published.data.batch_size, published.model.init_args.network
    if images % batch_size or images < batch_size:
        raise SystemExit(f"--images {images}: {name} needs a multiple of its {batch_size} a batch")
    yield from (f"--config={file}" for file in files)
    overlay: Any = OmegaConf.load(CONFIGS / "overlays/cpu.yaml")
    sections = {"model.network": overlay.model.init_args.network, **overlay}
    for section in ("model.network", "data", "trainer"):
        for option, value in sections[section].items():
            if option != "num_parts" or network.get("num_parts"):  # of methods that have parts
                yield f"--{section}.{option}={value}"
    share = epochs / published.trainer.max_epochs
    for option in IN_EPOCHS:
        count = OmegaConf.select(published, option)
        if count is not None:
            yield f"--{option}={max(round(share * count), 1)}"
    yield "--data.dataset=pplr_lightning.data.MarketLayout"  # without the counts of Market-1501
    yield f"--data.dataset.init_args.root={root}"
    yield f"--model.network.weights={weights}"
    yield "--trainer.precision=32-true"
    yield f"--data.iterations={images // batch_size}"
    yield f"--trainer.max_epochs={epochs}"
    yield f"--trainer.check_val_every_n_epoch={epochs}"  # the last, whatever their number
    yield f"--trainer.callbacks+={Peak.__module__}.{Peak.__qualname__}"


def main(args: list[str] | None = None) -> None:
    """Runs what is missing and prints the table."""
    parser = row_parser(__doc__.splitlines()[0], runs="runs/methods")
    parser.add_argument("--root", required=True, help="a set in the layout of Market-1501")
    parser.add_argument("--methods", nargs="+", choices=list(METHODS), default=list(METHODS))
    parser.add_argument("--epochs", type=int, default=24)
    parser.add_argument("--images", type=int, default=2560, help="of an epoch")
    parser.add_argument("--weights", help="of MobileNetV2, ImageNet's when not given")
    options, rest = parser.parse_known_args(args)
    options.weights = options.weights or str(imagenet_mobilenetv2())

    rows = {name: list(arguments(name, **vars(options))) for name in options.methods}
    runs: dict[str, list[Run]] = {name: [] for name in rows}
    for seed in options.seeds:
        for name, words in rows.items():
            forget_peak()
            try:
                runs[name].append(train(name, seed, words, options, rest))
            except (ValueError, FloatingPointError) as error:  # messages to the user
                print(f"{name}, seed {seed}: {error}", flush=True)

    columns = ("seeds", "mAP", "rank-1", "clusters", "outliers", "time, s", "memory, GiB")
    print(f"| | {' | '.join(columns)} | mAP of each seed |\n|---|{'---|' * (len(columns) + 1)}")
    for name, row in runs.items():
        if row:
            print(f"| {name} | {' | '.join(cells(row))} |")


def cells(runs: Sequence[Run]) -> list[str]:
    """Describes the runs of a method."""
    summaries = [run.summary["last"] for run in runs]
    return [
        str(len(runs)),
        *(spread([summary[metric] for summary in summaries]) for metric in ("mAP", "rank-1")),
        amount(runs, lambda run: run.course("labels/clusters")[-1], "{:.0f}"),
        spread([run.course("labels/outliers")[-1] for run in runs]),
        amount(runs, seconds, "{:.0f}"),
        amount(runs, lambda run: max(run.course(PEAK)) / 2**10, "{:.2f}"),
        ", ".join(f"{100 * summary['mAP']:.1f}" for summary in summaries),
    ]


def seconds(run: Run) -> float:
    """Sums up the labels' and the training's, without the evaluations'."""
    times = [working_times(row) for row in run.history if row["epoch"] >= 0]
    return sum(row["labels"] + row["training"] for row in times)


def amount(runs: Sequence[Run], of: Callable[[Run], float], form: str) -> str:
    """Writes mean and standard deviation of what is not a share."""
    values = [of(run) for run in runs]
    deviation = statistics.stdev(values) if len(values) > 1 else 0.0
    return f"{form.format(statistics.mean(values))} ± {form.format(deviation)}"


if __name__ == "__main__":
    main()
