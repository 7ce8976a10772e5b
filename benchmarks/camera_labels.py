"""Labels by the plain and by the camera-aware Jaccard distance, from the same features.

    python benchmarks/camera_labels.py --shifts 0.1 0.2 0.4 --seeds 1 2 3 --weights mobilenetv2.pth

Draws sets like that of benchmarks/cameras.py whose cameras differ less or more, embeds them with
the demo's backbone and labels them once. ARI, precision and recall of pairs look at clustered
images only, so distances are compared where they leave the same share of outliers: at the eps that
comes nearest to it. Means over the seeds; "ARI of all" counts every outlier as a cluster of its
own.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from cameras import COUNTS
from scipy import sparse
from torch import Tensor

from pplr_lightning import PPLRDataModule
from pplr_lightning import functional as F
from pplr_lightning.data import SyntheticReID
from pplr_lightning.evaluation.extraction import extract_features
from pplr_lightning.evaluation.label_quality import label_quality
from pplr_lightning.networks import PartNetwork


class Images(NamedTuple):
    """Features (N, D), identities (N,) and cameras (N,)."""

    features: Tensor
    ids: Tensor
    cameras: Tensor


DISTANCES = {
    "plain, k1 20, k2 4": lambda images: F.jaccard_distance(images.features, k1=20, k2=4),
    "camera-aware, {k1_intra} + {k1_inter}, {k2_intra} + {k2_inter}".format(**COUNTS): (
        lambda images: F.camera_jaccard_distance(images.features, images.cameras, **COUNTS)
    ),
    "plain, k1 30, k2 6": lambda images: F.jaccard_distance(images.features),
    "camera-aware, 5 + 20, 2 + 4": (
        lambda images: F.camera_jaccard_distance(images.features, images.cameras)
    ),
}


def main(arguments: Sequence[str] | None = None) -> None:
    """Labels and prints a row for each camera shift and distance."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shifts", type=float, nargs="+", default=[0.1, 0.2, 0.4])
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3], help="of the sets")
    parser.add_argument("--weights", required=True, help="of MobileNetV2, or a checkpoint of it")
    parser.add_argument("--outliers", type=float, default=0.35, help="share to compare at")
    parser.add_argument("--identities", type=int, default=80)
    options = parser.parse_args(arguments)

    columns = ("camera shift", "distance", "eps", "outliers", "ARI", "precision", "recall")
    print(f"| {' | '.join(columns)} | ARI of all |\n|" + "---|" * (len(columns) + 1))
    for shift in options.shifts:
        sets = [embed(shift, options.identities, options.weights, seed) for seed in options.seeds]
        for name, distance in DISTANCES.items():
            values = [compare(distance(images), images.ids, options.outliers) for images in sets]
            cells = " | ".join(f"{value:.2f}" for value in np.mean(values, axis=0))
            print(f"| {shift} | {name} | {cells} |", flush=True)


def embed(shift: float, identities: int, weights: str, seed: int) -> Images:
    """Draws the training images of a set and embeds them with the demo's network."""
    dataset = SyntheticReID(
        f"data/cameras_{shift}_{seed}",
        train_identities=identities,
        test_identities=1,
        images_per_identity=20,
        camera_shift=shift,
        occlusion=0.1,
        distractors=0,
        junk=0,
        seed=seed,
    )
    data = PPLRDataModule(dataset, image_size=(128, 64), num_workers=0)
    data.prepare_data()
    data.setup("fit")
    network = PartNetwork("mobilenetv2_100", weights=weights, num_parts=2, last_stride=2)
    features, _ = extract_features(network, data.labeling_dataloader())
    ids, cameras = torch.tensor([sample[1:3] for sample in data.train_samples]).unbind(1)
    return Images(features, ids, cameras)


def compare(distance: sparse.csr_matrix, ids: Tensor, outliers: float) -> list[float]:
    """Clusters at the eps that leaves about this share of outliers, and measures the labels."""
    candidates = [(eps, F.dbscan(distance, eps=eps)) for eps in np.arange(0.2, 0.8, 0.02)]
    eps, labels = min(
        candidates, key=lambda pair: abs(float((pair[1] < 0).float().mean()) - outliers)
    )
    alone = labels.clone()
    alone[labels < 0] = torch.arange(int((labels < 0).sum())) + labels.max() + 1
    share = float((labels < 0).float().mean())
    return [eps, share, *label_quality(labels, ids), label_quality(alone, ids).ari]


if __name__ == "__main__":
    main()
