"""What `auto` chooses for the options of DBSCAN, beside the best of its grid and fixed settings.

    python benchmarks/auto_labels.py --weights mobilenetv2.pth --market data/rendered

Draws sets of few and many images of a person under cameras that differ little and much, takes those
of --market as they are, embeds them with MobileNetV2 from --weights and from random weights, and
labels each once. A cell is the adjusted Rand index of all images, each outlier a cluster of its
own. `auto` knows the features alone; `told` the cameras and the images of a person, too. Identities
choose nothing but the column of the best. Sets are drawn once, into --folder.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence

import torch

from pplr_lightning import PPLRDataModule
from pplr_lightning.data import Market1501, ReIDDataset, SyntheticReID
from pplr_lightning.evaluation.extraction import extract_features
from pplr_lightning.labelers import GridLabels, Setting, Space, label_grid
from pplr_lightning.labelers.grid import choose
from pplr_lightning.networks import PartNetwork

SIZES = ((5, 40), (5, 132), (11, 60), (11, 145), (22, 73))  # images of a person, and people
FIXED = {"published": Setting(30, 6, 0.5, 4), "k1 10": Setting(10, 2, 0.6, 4)}
COLUMNS = ("images", "start", "N", "each", "best", "ARI", "auto", "ARI", "of best", "told", *FIXED)


def main(arguments: Sequence[str] | None = None) -> None:
    """Labels and prints a row for each set and start, and the means."""
    options = parse(arguments)
    print(f"| {' | '.join(COLUMNS)} |\n|" + "---|" * len(COLUMNS))
    rows = []
    for name, dataset in sets(options):
        for start in ("ImageNet", "random"):
            space = embed(dataset, options.weights if start == "ImageNet" else None)
            rows.append(compare(space))
            print(f"| {name} | {start} | {line(space, rows[-1])} |", flush=True)
    print(summary(rows))


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--weights", required=True, help="of MobileNetV2")
    parser.add_argument("--market", help="a folder in the layout of Market-1501, beside the drawn")
    parser.add_argument("--shifts", type=float, nargs="*", default=[0.1, 0.4], help="of cameras")
    parser.add_argument("--seed", type=int, default=5, help="of the drawn sets")
    parser.add_argument("--folder", default="data/auto", help="of the drawn sets")
    return parser.parse_args(arguments)


def sets(options: argparse.Namespace) -> Iterator[tuple[str, ReIDDataset]]:
    """Yields the data sets by name."""
    for shift in options.shifts:
        for each, people in SIZES:
            yield (
                f"drawn, {shift:g}",
                SyntheticReID(
                    f"{options.folder}/drawn_{shift:g}_{each}_{people}",
                    train_identities=people,
                    test_identities=1,
                    images_per_identity=each,
                    camera_shift=shift,
                    distractors=0,
                    junk=0,
                    seed=options.seed,
                ),
            )
    if options.market:
        yield "rendered", Market1501(options.market)


def embed(dataset: ReIDDataset, weights: str | None) -> Space:
    """Embeds the training images of a set."""
    data = PPLRDataModule(dataset, image_size=(128, 64), num_workers=0)
    data.prepare_data()
    data.setup("predict")
    torch.manual_seed(0)
    network = PartNetwork("mobilenetv2_100", weights=weights, num_parts=0, last_stride=2)
    network.load_weights()
    features, _ = extract_features(network, data.labeling_dataloader())
    ids = torch.tensor([sample[1:3] for sample in data.train_samples])
    return Space.of(features, persons=ids[:, 0], cameras=ids[:, 1])


def images_per_person(space: Space) -> float:
    """Averages them."""
    assert space.persons is not None
    return space.total / len(space.persons.unique())


def compare(space: Space) -> dict[str, GridLabels]:
    """Labels a set by the whole grid, and picks the columns."""
    told = label_grid(space, images_per_person=images_per_person(space))
    space = Space.of(space.features, persons=space.persons)
    grid = label_grid(space)
    by_setting = {labels.setting: labels for labels in grid}
    return {
        "best": max(grid, key=lambda labels: labels.values["ari"]),
        "auto": choose(grid),
        "told": choose(told),
        **{name: by_setting[setting] for name, setting in FIXED.items() if setting in by_setting},
    }


def line(space: Space, row: dict[str, GridLabels]) -> str:
    """Writes a row's cells."""
    ari = {name: labels.values["ari"] for name, labels in row.items()}
    cells = [f"{space.total:,}", f"{images_per_person(space):.0f}"]
    for name in ("best", "auto"):
        doubted = "*" if row[name].doubts and name == "auto" else ""
        k1, k2, eps, least = row[name].setting
        cells += [f"{k1}, {k2}, {eps:g}, {least}{doubted}", f"{ari[name]:.3f}"]
    cells.append(f"{ari['auto'] / ari['best']:.0%}")
    return " | ".join([*cells, *(f"{ari[name]:.3f}" for name in ("told", *FIXED))])


def summary(rows: Sequence[dict[str, GridLabels]]) -> str:
    """Says how much of the best ARI each choice has on average and at worst, and who is ahead."""
    lines = ["\n| | of the best, mean | least | sets in which `auto` is ahead |\n|---|---|---|---|"]
    for name in ("auto", "told", *FIXED):
        ari = [[row[one].values["ari"] for one in (name, "best", "auto")] for row in rows]
        shares = [found / best for found, best, _ in ari]
        ahead = "" if name == "auto" else f"{sum(f < auto for f, _, auto in ari)} of {len(rows)}"
        lines.append(f"| {name} | {sum(shares) / len(rows):.0%} | {min(shares):.0%} | {ahead} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
