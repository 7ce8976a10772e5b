"""Labels of single images and of tracklets, from the same features.

    python benchmarks/tracklets.py --root data/rendered

Embeds the training images of a set in the layout of Market-1501 with MobileNetV2 from ImageNet's
weights and labels them once. Tracklets are those of the names. "ARI of all" counts what is left
out as clusters of its own: an image, or a tracklet where these are labelled. Of pairs of images of
different tracklets, `precision` and `recall` look at all that share a cluster, or an identity.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

import numpy as np
import torch
from sklearn.metrics import adjusted_rand_score
from torch import Tensor

from pplr_lightning import PPLRDataModule
from pplr_lightning.data import Market1501
from pplr_lightning.data.datasets import tracklet_numbers
from pplr_lightning.evaluation.extraction import extract_features
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
    options = parser.parse_args(arguments)

    frames, numbers = embed(options.root, options.weights or str(imagenet_mobilenetv2()))
    persons = frames.persons
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
    return Space.of(features, persons=persons), torch.tensor(tracklet_numbers(data.train_samples))


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
    outliers = classes < 0
    alone = classes if unit is None else torch.where(outliers, unit + len(classes), classes)
    both = across(numbers, alone, persons)
    values = (
        float(outliers.float().mean()),
        adjusted_rand_score(persons, alone),
        both / max(across(numbers, alone), 1),
        both / max(across(numbers, persons), 1),
    )
    return f"| {' | '.join(map(str, cells))} | {' | '.join(f'{value:.3f}' for value in values)} |"


def across(numbers: Tensor, *labels: Tensor) -> int:
    """Counts the pairs of images of different tracklets that have all labels in common."""
    return _pairs(*labels) - _pairs(numbers, *labels)


def _pairs(*labels: Tensor) -> int:
    _, counts = np.unique(torch.stack(labels).numpy(), axis=1, return_counts=True)
    return int((counts * (counts - 1) // 2).sum())


if __name__ == "__main__":
    main()
