"""Labels of single images and of tracklets, from the same features.

    python benchmarks/tracklets.py --root data/rendered

Embeds the training images of a set in the layout of Market-1501 with MobileNetV2 from ImageNet's
weights and labels them once. Tracklets are those of the names. "ARI of all" counts what is left
out as clusters of its own: an image, or a tracklet where these are labelled. Of pairs of images of
different tracklets, `precision` and `recall` look at all that share a cluster, or an identity.

    python benchmarks/tracklets.py --root data/rendered --crowd 4 --switches 0.2 --split 2.25

With `--crowd` draws when each walk begins, so that a camera sees so many at once, and by
`--switches` a tracker that swaps two of them in a frame that shows both, until that share of the
walks is swapped. Labels of these with and without what `cannot_link` and `split_tracklets` do, for
each k1 at the eps with the best ARI, means over three draws.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from itertools import product

import numpy as np
import torch
from sklearn.metrics import adjusted_rand_score
from torch import Tensor

from pplr_lightning import PPLRDataModule
from pplr_lightning.data import Market1501
from pplr_lightning.data.datasets import tracklet_numbers
from pplr_lightning.evaluation.extraction import extract_features
from pplr_lightning.functional import split_tracklets
from pplr_lightning.labelers import DBSCAN, Space
from pplr_lightning.networks import PartNetwork
from pplr_lightning.weights.packaged import imagenet_mobilenetv2

IMAGES = [{"k1": k1, "k2": k2, "min_samples": 4} for k1, k2 in ((10, 3), (20, 4), (30, 6))]
TRACKLETS = [{"k1": k1, "k2": k2, "min_samples": 2} for k1, k2 in ((5, 2), (8, 3), (12, 4))]


def main(arguments: Sequence[str] | None = None) -> None:
    """Labels and prints a row for each setting."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--root", required=True, help="a set in the layout of Market-1501")
    parser.add_argument("--weights", help="of MobileNetV2, ImageNet's when not given")
    parser.add_argument("--eps", type=float, nargs="+", default=[0.3, 0.4, 0.5, 0.6, 0.7])
    parser.add_argument("--crowd", type=float, help="walks that a camera sees at once")
    parser.add_argument("--switches", type=float, nargs="+", default=[0.0], help="shares of them")
    parser.add_argument("--split", type=float, default=2.25, help="as of split_tracklets")
    parser.add_argument("--draws", type=int, default=3)
    options = parser.parse_args(arguments)

    frames, numbers = embed(options.root, options.weights or str(imagenet_mobilenetv2()))
    persons = frames.persons
    if options.crowd is not None:
        print_drawn(frames, numbers, options)
        return
    columns = ("labels of", "k1", "k2", "min_samples", "eps", "outliers", "ARI of all")
    print(f"| {' | '.join(columns)} | precision | recall |\n|" + "---|" * (len(columns) + 2))
    print(row(["tracklets alone", "", "", "", ""], numbers, persons, numbers))
    each = torch.arange(len(numbers))
    for name, space, unit, settings in (
        ("images", frames, each, IMAGES),
        ("tracklets", frames.of_tracklets(numbers), numbers, TRACKLETS),
    ):
        for setting in settings:
            for eps in options.eps:
                classes = DBSCAN(**setting, eps=eps).label(space)
                cells = [name, *setting.values(), eps]
                print(row(cells, classes[unit], persons, numbers, unit), flush=True)


def embed(root: str, weights: str) -> tuple[Space, Tensor]:
    """Embeds the training images; gives their space and each one's tracklet."""
    data = PPLRDataModule(Market1501(root, tracklets="names"), image_size=(128, 64), num_workers=0)
    data.setup("fit")
    network = PartNetwork("mobilenetv2_100", weights=weights, num_parts=0, last_stride=2)
    features, _ = extract_features(network, data.labeling_dataloader())
    persons = torch.tensor([sample.person_id for sample in data.train_samples])
    cameras = torch.tensor([sample.camera_id for sample in data.train_samples])
    space = Space.of(features, persons=persons, cameras=cameras)
    return space, torch.tensor(tracklet_numbers(data.train_samples))


def print_drawn(space: Space, numbers: Tensor, options: argparse.Namespace) -> None:
    """Prints the table of drawn crowds and switches."""
    columns = ["swapped", "split", "cannot_link", *TRACKLETS[0], "eps", "mixed", "outliers"]
    print(f"| {' | '.join([*columns, 'ARI of all', 'precision', 'recall'])} |")
    print("|" + "---|" * (len(columns) + 3))
    features, persons = space.features, space.persons
    ways = product(options.switches, (None, options.split), (False, True), TRACKLETS)
    drawn: dict[tuple[float, float | None, int], tuple[Space, Tensor]] = {}
    for rate, split, cannot_link, setting in ways:
        found = []
        for seed in range(options.draws):
            if (rate, split, seed) not in drawn:
                generator = torch.Generator().manual_seed(seed)
                times = draw_times(numbers, space.cameras, options.crowd, generator)
                walks = draw_switches(numbers, space.cameras, times, rate, generator)
                if split is not None:
                    walks = split_tracklets(features, walks, factor=split, frames=times)
                seen = torch.stack([space.cameras, times], dim=1)
                frames = seen.unique(dim=0, return_inverse=True)[1]
                whole = Space.of(features, persons=persons, frames=frames)
                drawn[rate, split, seed] = whole.of_tracklets(walks), walks
            tracks, walks = drawn[rate, split, seed]
            mixed = float((tracks.persons < 0).sum())
            by_eps = []
            for eps in options.eps:
                classes = DBSCAN(**setting, eps=eps, cannot_link=cannot_link).label(tracks)
                by_eps.append([mixed, *measure(classes[walks], persons, numbers, walks)])
            found.append(by_eps)
        means = np.mean(found, axis=0)  # of the draws, (E, 5)
        best = int(means[:, 2].argmax())
        cells = [rate, split or "no", "yes" if cannot_link else "no", *setting.values()]
        cells += [options.eps[best], f"{means[best, 0]:.0f}"]
        print(f"| {' | '.join(map(str, cells))} | {_numbers(means[best, 1:])} |", flush=True)


def draw_times(
    numbers: Tensor, cameras: Tensor, crowd: float, generator: torch.Generator
) -> Tensor:
    """Draws when each walk begins, and numbers its frames from there on, (N,)."""
    times = torch.empty_like(numbers)
    for camera in cameras.unique():
        here = cameras == camera
        length = max(1, round(int(here.sum()) / crowd))
        for walk in numbers[here].unique():
            rows = (numbers == walk).nonzero()[:, 0]
            start = int(torch.randint(length, (), generator=generator))
            times[rows] = start + torch.arange(len(rows))
    return times


def draw_switches(
    numbers: Tensor, cameras: Tensor, times: Tensor, rate: float, generator: torch.Generator
) -> Tensor:
    """Swaps what comes of two walks after a frame that shows both, for a share of the walks."""
    swapped = numbers.clone()
    rows = [(numbers == walk).nonzero()[:, 0] for walk in range(int(numbers.max()) + 1)]
    begins, ends = (torch.tensor([f(times[one]) for one in rows]) for f in (torch.min, torch.max))
    places = cameras[torch.stack([one[0] for one in rows])]
    free = torch.ones(len(rows), dtype=torch.bool)
    for walk in torch.randperm(len(rows), generator=generator).tolist():
        if int((~free).sum()) >= rate * len(rows):
            break
        # Both are seen before the swap and after it.
        first, last = begins.maximum(begins[walk]) + 1, ends.minimum(ends[walk])
        others = free & (places == places[walk]) & (first <= last)
        others[walk] = False
        if not free[walk] or not others.any():
            continue
        other = int(others.nonzero()[:, 0][0])
        swap = int(first[other] + last[other]) // 2
        for one, to in ((walk, other), (other, walk)):
            swapped[rows[one][times[rows[one]] >= swap]] = to
        free[[walk, other]] = False
    return swapped


def row(
    cells: Sequence[object],
    classes: Tensor,
    persons: Tensor,
    numbers: Tensor,
    unit: Tensor | None = None,
) -> str:
    """Writes a row of the table.

    Args:
        cells: What comes first.
        classes: Of all images, -1 for none, (N,).
        persons: Identities, (N,).
        numbers: Tracklets, (N,).
        unit: What an image without a class is a cluster with: those of the same number, (N,).
    """
    return (
        f"| {' | '.join(map(str, cells))} | {_numbers(measure(classes, persons, numbers, unit))} |"
    )


def measure(
    classes: Tensor, persons: Tensor, numbers: Tensor, unit: Tensor | None = None
) -> tuple[float, ...]:
    """Gives outliers, ARI, precision and recall of classes, of the same arguments as `row`."""
    outliers = classes < 0
    alone = classes if unit is None else torch.where(outliers, unit + len(classes), classes)
    both = across(numbers, alone, persons)
    return (
        float(outliers.float().mean()),
        adjusted_rand_score(persons, alone),
        both / max(across(numbers, alone), 1),
        both / max(across(numbers, persons), 1),
    )


def _numbers(values: Sequence[float]) -> str:
    return " | ".join(f"{value:.3f}" for value in values)


def across(numbers: Tensor, *labels: Tensor) -> int:
    """Counts the pairs of images of different tracklets that have all labels in common."""
    return _pairs(*labels) - _pairs(numbers, *labels)


def _pairs(*labels: Tensor) -> int:
    _, counts = np.unique(torch.stack(labels).numpy(), axis=1, return_counts=True)
    return int((counts * (counts - 1) // 2).sum())


if __name__ == "__main__":
    main()
