"""What answers about clusters bring: a simulated user who tells people apart without error.

    OMP_NUM_THREADS=1 python benchmarks/corrections.py --root data/rendered

Embeds the training images of a set in the layout of Market-1501 with MobileNetV2 from ImageNet's
weights, labels them by DBSCAN and has the user of `pplr correct` answer by the true identities. It
sees what the page shows of one cluster after the other. Images of other people than most are of it
splits off; then it merges those beside the cluster that are of its person, and splits off what
comes in with these. An answer takes a click, and one for each image that is chosen. After some
numbers of answers the same vectors are labelled anew with the pairs; with --rounds the user goes on
with the new clusters.

ARI is of all images, an outlier a cluster of its own; precision and recall are of all pairs of
images that share a cluster, or an identity. Orders are of the clusters: `doubt` is the page's,
`random` the mean of --draws.
"""

from __future__ import annotations

import argparse
import random
import tempfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from pplr_lightning import PPLRDataModule
from pplr_lightning.data import Market1501
from pplr_lightning.evaluation.extraction import extract_features
from pplr_lightning.evaluation.label_quality import rand_index
from pplr_lightning.labelers import DBSCAN, Space
from pplr_lightning.labelers.assignment import Assignment
from pplr_lightning.networks import PartNetwork
from pplr_lightning.serving.corrections import Corrections
from pplr_lightning.weights.packaged import imagenet_mobilenetv2


class Found(NamedTuple):
    """What labels are worth after some answers, and what those took."""

    answers: int
    clicks: float
    clusters: float
    outliers: float
    ari: float
    precision: float
    recall: float


def main(arguments: Sequence[str] | None = None) -> None:
    """Answers and prints a row for each number of answers."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--root", required=True, help="a set in the layout of Market-1501")
    parser.add_argument("--weights", help="of MobileNetV2, ImageNet's when not given")
    parser.add_argument("--features", type=Path, help="file that keeps the vectors")
    parser.add_argument("--k1", type=int, default=16)
    parser.add_argument("--k2", type=int, default=3)
    parser.add_argument("--eps", type=float, default=0.6)
    parser.add_argument("--min_samples", type=int, default=4)
    parser.add_argument("--answers", type=int, nargs="+", default=[20, 50, 100, 200])
    parser.add_argument("--orders", nargs="+", default=["doubt", "random"])
    parser.add_argument("--rounds", action="store_true", help="label anew at each number")
    parser.add_argument("--draws", type=int, default=3, help="of random orders")
    options = parser.parse_args(arguments)
    features, persons = embed(options)
    space = Space.of(features, persons=persons)
    labeler = DBSCAN(k1=options.k1, k2=options.k2, eps=options.eps, min_samples=options.min_samples)
    classes = labeler.label(space)
    print(f"| order | {' | '.join(Found._fields)} |\n|{'---|' * (1 + len(Found._fields))}")
    for order in options.orders:
        draws = [
            simulate(space, classes, options.answers, order, rounds=options.rounds, seed=seed)
            for seed in range(1 if order == "doubt" else options.draws)
        ]
        for some in zip(*draws, strict=True):
            print(row(order, Found(*(sum(v) / len(v) for v in zip(*some, strict=True)))))


def embed(options: argparse.Namespace) -> tuple[Tensor, Tensor]:
    """Embeds the training images, or takes the vectors of an earlier call; with identities."""
    data = PPLRDataModule(Market1501(options.root), image_size=(128, 64), num_workers=0)
    persons = torch.tensor([sample.person_id for sample in data.dataset.load().train])
    if options.features is not None and options.features.is_file():
        return torch.load(options.features, weights_only=True), persons
    data.setup("fit")
    weights = options.weights or str(imagenet_mobilenetv2())
    network = PartNetwork("mobilenetv2_100", weights=weights, num_parts=0, last_stride=2)
    features, _ = extract_features(network, data.labeling_dataloader())
    if options.features is not None:
        torch.save(features, options.features)
    return features, persons


def simulate(
    space: Space,
    classes: Tensor,
    numbers: Sequence[int],
    order: str,
    *,
    rounds: bool = False,
    seed: int = 0,
) -> list[Found]:
    """Answers, labels anew after each number of answers, and measures.

    Args:
        space: The images, whose identities the user knows.
        classes: Of the first page.
        numbers: Of answers, ascending.
        order: `doubt` or `random`.
        rounds: Go on with the clusters of the new labels.
        seed: Of the random order.

    Returns:
        What is found before the first answer, and after each number.
    """
    names = [str(image) for image in range(space.total)]
    found = [measure(space, classes, 0, 0)]
    clicks, shown = 0, classes
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "answers.parquet")
        page: User | None = None
        for number in numbers:
            if page is None or rounds:
                made = Assignment.of(space, shown, root=Path(folder), names=names)
                page = User(Corrections(made, file), space, order, seed)
            while page.corrections.answers < number and (cost := page.answer()):
                clicks += cost
            shown = space.constrain(classes, page.corrections.pairs())
            found.append(measure(space, shown, page.corrections.answers, clicks))
    return found


class User:
    """Answers about one cluster after the other, by the true identities.

    Args:
        corrections: The page.
        space: The images, with identities.
        order: `doubt` or `random`.
        seed: Of the random order.
    """

    def __init__(self, corrections: Corrections, space: Space, order: str, seed: int) -> None:
        self.corrections = corrections
        self.persons = space.persons.tolist()
        self.clusters = corrections.clusters()
        if order == "random":
            random.Random(seed).shuffle(self.clusters)
        self.place = 0
        self.asked: set[int] = set()  # of what is beside them

    def answer(self) -> int:
        """Gives the next answer; returns its clicks, 0 where nothing is left to say."""
        for place in range(self.place, len(self.clusters)):
            self.place = place
            view = self.corrections.view(self.clusters[place])
            if view.cluster != self.clusters[place] or not view.images:  # merged by now
                continue
            person = self.most(view.images)
            others = [one for one in view.images if self.persons[one] != person]
            if others:
                self.corrections.split(view, others)
                return 1 + len(others)
            if view.beside and place not in self.asked:
                chosen = [one for one in view.beside if self.persons[one] == person]
                self.corrections.merge(view, chosen)
                self.asked.add(place)
                return 1 + len(chosen)
        return 0

    def most(self, images: Sequence[int]) -> int:
        """Returns the person that most of the images are of, of equally many the first."""
        return Counter(self.persons[one] for one in images).most_common(1)[0][0]


def measure(space: Space, classes: Tensor, answers: int, clicks: int) -> Found:
    """Compares labels with the identities."""

    def pairs(ids: Tensor) -> int:
        counts = ids.unique(dim=-1, return_counts=True)[1]
        return int((counts * (counts - 1)).sum())

    persons = space.persons
    kept = classes >= 0
    both = pairs(torch.stack([classes, persons])[:, kept])
    return Found(
        answers,
        clicks,
        int(classes.max()) + 1,
        float((~kept).double().mean()),
        rand_index(classes, persons),
        both / max(1, pairs(classes[kept])),
        both / pairs(persons),
    )


def row(order: str, found: Found) -> str:
    """Writes a row of the table."""
    answers, clicks, clusters, outliers, *rest = found
    cells = [f"{answers:.0f}", f"{clicks:.0f}", f"{clusters:.0f}", f"{outliers:.1%}"]
    return f"| {' | '.join([order, *cells, *(f'{value:.3f}' for value in rest)])} |"


if __name__ == "__main__":
    main()
