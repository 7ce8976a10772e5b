"""Neighbour lists for labels, searched exactly and approximately: CPU time and recall.

    OMP_NUM_THREADS=1 python benchmarks/neighbors.py --images 200000 --dim 128 --threads 1

Draws features of some identities and finds the neighbours of all of them: exactly, with an inverted
file (`pseudo_labels.index: ivf`), and with two neighbour graphs of FAISS which are not options of
this library. Recall is the share of the exact list that is found. Recall, and the time of what
searches an image at a time, are taken from a sample; building is counted whole.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import faiss
import numpy as np
import torch
from measuring import draw
from numpy.typing import NDArray

Array = NDArray[Any]


class Lists(NamedTuple):
    """Neighbours (rows, K) of a sample, and the CPU seconds that all images' would take."""

    neighbors: Array
    seconds: float


def main(arguments: Sequence[str] | None = None) -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=200_000)
    parser.add_argument("--dim", type=int, default=128)
    parser.add_argument("--images_per_id", type=int, default=34)
    parser.add_argument("--noise", type=float, default=0.5)
    parser.add_argument("-k", type=int, default=30)
    parser.add_argument("--probes", type=int, default=64)
    parser.add_argument("--sample", type=int, default=1000)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    options = parser.parse_args(arguments)
    faiss.omp_set_num_threads(options.threads)
    ids = max(2, options.images // options.images_per_id)
    drawn = draw(options.images, ids, 6, options.dim, noise=options.noise)
    features = drawn.features.numpy()
    sample = np.random.default_rng(0).permutation(options.images)[: options.sample]
    print(
        f"{options.images:,} images of {options.dim} dimensions, noise {options.noise}, "
        f"{options.k} neighbours, {options.threads} threads\n\n"
        "| search | CPU s | recall |\n|---|---|---|"
    )
    exact = None
    for name, lists in searches(features, sample, options.k, options.probes):
        exact = lists.neighbors if exact is None else exact
        pairs = zip(exact, lists.neighbors, strict=True)
        recall = np.mean([np.isin(wanted, found).mean() for wanted, found in pairs])
        print(f"| {name} | {lists.seconds:.1f} | {recall:.3f} |", flush=True)


def searches(features: Array, sample: Array, k: int, probes: int) -> Iterator[tuple[str, Lists]]:
    """Searches in each way; the exact one comes first."""
    dim, product = features.shape[1], faiss.METRIC_INNER_PRODUCT

    def find(build: Callable[[], Any]) -> Lists:
        start = time.process_time()
        index = build()
        built = time.process_time()
        found = index.search(features[sample], k)[1]
        share = len(features) / len(sample)
        return Lists(found, built - start + (time.process_time() - built) * share)

    def inverted_file() -> Any:
        cells = round(4 * len(features) ** 0.5)
        index = faiss.index_factory(dim, f"IVF{cells},Flat", product)
        index.train(features[: 64 * cells])
        index.nprobe = probes
        return filled(index)

    def filled(index: Any) -> Any:
        index.add(features)
        return index

    yield "exact", find(lambda: filled(faiss.IndexFlatIP(dim)))
    yield f"inverted file, {probes} cells read", find(inverted_file)
    yield "graph, HNSW of 32 links", find(lambda: filled(faiss.IndexHNSWFlat(dim, 32, product)))
    start = time.process_time()
    index = filled(faiss.IndexNNDescentFlat(dim, k + 10, faiss.METRIC_L2))
    seconds = time.process_time() - start  # the graph is the lists of all images: nothing to search
    graph = faiss.vector_to_array(index.nndescent.final_graph)
    others = graph.reshape(len(features), -1)[sample, : k - 1]
    yield "graph, NN-descent", Lists(np.column_stack([sample, others]), seconds)


if __name__ == "__main__":
    main()
