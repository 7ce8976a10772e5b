"""CPU time and memory of the evaluation, beside the usual way to write it.

    OMP_NUM_THREADS=1 python benchmarks/evaluation.py --threads 1

Scores synthetic features, clustered by identity and shifted by camera, of the size of Market-1501.
The dense version holds all distances and, one query after the other in Python, sorts the gallery
and calls scikit-learn. It is timed with numpy's fastest sort; the metrics are compared with those
of the stable sort, several times slower, for the other puts equal distances in no fixed order.

Prints CPU seconds (of all threads together, so that other programs on the machine matter little),
the peak of memory beyond the features (and the distances, where they are given) and the largest
difference of a metric; after the table what re-ranking takes, which there is no dense version of
here. Memory is read from /proc: Linux only. What is compiled at the first call is
not counted.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

import numpy as np
import torch
from measuring import Cost, Images, draw, measure
from numpy.typing import NDArray
from sklearn.metrics import average_precision_score
from torch import Tensor

from pplr_lightning.evaluation.metric import ReIDRetrieval
from pplr_lightning.functional import retrieval_metrics

TOPK = (1, 5, 10)
NOISE = 3.0  # makes the task as hard as a real one
Metrics = dict[str, float]


def main(arguments: Sequence[str] | None = None) -> None:
    """Measures both and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--queries", type=int, default=3368)
    parser.add_argument("--gallery", type=int, default=15913)
    parser.add_argument("--ids", type=int, default=750)
    parser.add_argument("--cameras", type=int, default=6)
    parser.add_argument("--dim", type=int, default=2048)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.threads)

    total = options.queries + options.gallery
    images = draw(total, options.ids, options.cameras, options.dim, noise=NOISE, seed=options.seed)
    query = Images(*(value[: options.queries] for value in images))
    gallery = Images(*(value[options.queries :] for value in images))
    few = Images(*(value[: 1 + 8 * options.ids] for value in images))
    from_features(few, few, rerank=True)  # compiles
    from_distances(few, few, distances(few, few))

    streamed, stream_cost = measure(lambda: from_features(query, gallery))
    distance, product_cost = measure(lambda: distances(query, gallery))
    _, rerank_cost = measure(lambda: from_features(query, gallery, rerank=True))
    ours, our_cost = measure(lambda: from_distances(query, gallery, distance))
    _, dense_cost = measure(lambda: dense(query, gallery, distance.numpy(), "quicksort"))
    expected = dense(query, gallery, distance.numpy(), "stable")
    whole = Cost(
        dense_cost.seconds + product_cost.seconds,
        max(product_cost.memory, distance.nbytes / 2**20 + dense_cost.memory),
    )

    print(
        f"{options.queries} queries, {options.gallery} gallery images of {options.dim} features, "
        f"{options.ids} identities, {options.cameras} cameras, {options.threads} threads"
    )
    print("  ".join(f"{name} {100 * value:.2f} %" for name, value in expected.items()) + "\n")
    print("| | CPU s | ratio | memory, MiB | largest difference |\n|---|---|---|---|---|")
    _print_row("dense, distances given", dense_cost, dense_cost, 0.0)
    _print_row("retrieval_metrics", our_cost, dense_cost, _difference(ours, expected))
    _print_row("dense, with the distances", whole, whole, 0.0)
    _print_row("ReIDRetrieval", stream_cost, whole, _difference(streamed, expected))
    _print_row("of these the distances alone", product_cost, whole, 0.0)
    print(
        f"\nReIDRetrieval with the re-ranked gallery, too: {rerank_cost.seconds:.2f} CPU s, "
        f"{rerank_cost.memory:.0f} MiB"
    )


def distances(query: Images, gallery: Images) -> Tensor:
    """All squared distances, (Q, G)."""
    return (query.features @ gallery.features.T).mul_(-2).add_(2)


def from_distances(query: Images, gallery: Images, distance: Tensor) -> Metrics:
    """Ours, of distances (Q, G)."""
    return retrieval_metrics(
        distance, query.ids, gallery.ids, query.cameras, gallery.cameras, topk=TOPK
    )


def from_features(query: Images, gallery: Images, *, rerank: bool = False) -> Metrics:
    """Ours, of features."""
    metric = ReIDRetrieval(topk=TOPK, rerank=rerank)
    for start, images in ((0, query), (len(query.ids), gallery)):
        indices = start + torch.arange(len(images.ids))
        role = torch.full_like(indices, images is query and start == 0, dtype=torch.bool)
        metric.update(*images, role, indices)
    return metric.compute()


def dense(query: Images, gallery: Images, distance: NDArray[np.float32], sort: str) -> Metrics:
    """The usual way: each query's whole row is sorted."""
    query_ids, query_cameras = query.ids.numpy(), query.cameras.numpy()
    gallery_ids, gallery_cameras = gallery.ids.numpy(), gallery.cameras.numpy()
    precisions, firsts, inverses = [], [], []
    for q in range(len(distance)):
        order = np.argsort(distance[q], kind=sort)
        person, camera = gallery_ids[order], gallery_cameras[order]
        kept = (person != -1) & ~((person == query_ids[q]) & (camera == query_cameras[q]))
        match = person[kept] == query_ids[q]
        if not match.any():
            continue
        precisions.append(average_precision_score(match, -distance[q][order][kept]))
        ranks = 1 + np.flatnonzero(match)
        firsts.append(ranks[0])
        inverses.append(len(ranks) / ranks[-1])
    metrics = {"mAP": float(np.mean(precisions)), "mINP": float(np.mean(inverses))}
    return metrics | {f"rank-{k}": float(np.mean(np.array(firsts) <= k)) for k in TOPK}


def _difference(metrics: Metrics, expected: Metrics) -> float:
    return max(abs(metrics[name] - expected[name]) for name in expected)


def _print_row(name: str, cost: Cost, reference: Cost, difference: float) -> None:
    ratio = f"{reference.seconds / max(cost.seconds, 1e-9):.1f}"
    print(f"| {name} | {cost.seconds:.2f} | {ratio} | {cost.memory:.0f} | {difference:.1e} |")


if __name__ == "__main__":
    main()
