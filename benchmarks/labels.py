"""CPU time and memory of the label stage after the search, beside a dense version of the
authors' algorithm.

    OMP_NUM_THREADS=1 python benchmarks/labels.py --images 12936
    OMP_NUM_THREADS=1 python benchmarks/labels.py --images 100000 --dim 64 --no-dense
    OMP_NUM_THREADS=1 python benchmarks/labels.py --images 12936 --no-dense --ranks 2
    OMP_NUM_THREADS=1 python benchmarks/labels.py --no-dense --ranks 2 --camera_jaccard

Features are drawn, some 17 images an identity as in Market-1501, and searched; then both ways get
the same neighbour lists. CPU seconds are those of all threads together, so that other programs on
the machine matter little; memory is the peak beyond what was held before. With --ranks, that many
processes share the whole stage, search included, and each one's time is printed. What is compiled
at the first call is not counted.
"""

from __future__ import annotations

import argparse
import functools
import tempfile
import time
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path

import dense_labels
import numpy as np
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from measuring import Cost, Images, draw, measure
from sklearn.metrics import adjusted_rand_score
from torch import Tensor

from pplr_lightning import functional as F
from pplr_lightning.functional.agreement import overlap
from pplr_lightning.functional.sharding import Share
from pplr_lightning.functional.warm_up import compile_loops
from pplr_lightning.labelers import DBSCAN, CameraDBSCAN, Labeler, Space


def main(arguments: Sequence[str] | None = None) -> None:
    """Measures and prints the tables."""
    options = parse(arguments)
    torch.set_num_threads(options.threads)
    compile_loops()
    print(
        f"{options.images} images, {options.dim} dimensions, k1 {options.k1}, k2 {options.k2}, "
        f"eps {options.eps}, {options.parts} parts, {options.threads} threads of each process\n"
    )
    if options.ranks:
        across_ranks(options)
    else:
        beside_dense(options)


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=12936)
    parser.add_argument("--dim", type=int, default=256)
    parser.add_argument("--parts", type=int, default=3)
    parser.add_argument("--k1", type=int, default=30)
    parser.add_argument("--k2", type=int, default=6)
    parser.add_argument("--eps", type=float, default=0.5)
    parser.add_argument("--min_samples", type=int, default=4)
    parser.add_argument("--agreement_k", type=int, default=20)
    parser.add_argument("--noise", type=float, default=0.8)
    parser.add_argument("--images_per_id", type=int, default=17)
    parser.add_argument("--backend", default="auto")
    parser.add_argument("--index", default="flat")
    parser.add_argument("--probes", type=int, default=64)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--ranks", type=int, default=0)
    parser.add_argument("--camera_jaccard", action="store_true", help="with --ranks")
    parser.add_argument("--dense", action=argparse.BooleanOptionalAction, default=True)
    return parser.parse_args(arguments)


def draw_spaces(options: argparse.Namespace) -> tuple[Images, list[Tensor]]:
    """Draws images by their global features, and part features that see less of the identity."""
    shape = (options.images, max(2, options.images // options.images_per_id), 6, options.dim)
    whole = draw(*shape, noise=options.noise)
    # The same identities, seen through other noise.
    parts = [
        torch.nn.functional.normalize(whole.features + 0.5 * other.features, dim=1)
        for other in (draw(*shape, noise=2.0, seed=1 + n) for n in range(options.parts))
    ]
    return whole, parts


def beside_dense(options: argparse.Namespace) -> None:
    """Prints what each stage after the search takes."""
    (whole, ids, _), parts = draw_spaces(options)
    find = functools.partial(
        F.nearest_neighbors,
        k=max(options.k1, options.k2, options.agreement_k + 1),
        backend=options.backend,
        index=options.index,
        probes=options.probes,
    )
    start = time.perf_counter()
    neighbors, search_cost = measure(lambda: find(whole))
    print(
        f"search: {search_cost.seconds:.1f} CPU s, {time.perf_counter() - start:.1f} s, "
        f"+{search_cost.memory:.0f} MiB\n"
    )
    lists = [find(part) for part in parts]

    distance, jaccard = measure(
        lambda: F.jaccard_distance(
            whole, k1=options.k1, k2=options.k2, neighbors=neighbors, max_distance=options.eps
        )
    )
    labels, clustering = measure(
        lambda: F.dbscan(distance, eps=options.eps, min_samples=options.min_samples)
    )
    scores, agreement = measure(
        lambda: [overlap(neighbors, near, k=options.agreement_k) for near in lists]
    )
    stages = {
        "Jaccard distance": jaccard,
        "DBSCAN": clustering,
        "both": Cost(jaccard.seconds + clustering.seconds, max(jaccard.memory, clustering.memory)),
        "agreement": agreement,
    }
    dense: dict[str, Cost] = {}
    same: dict[str, str] = {}
    if options.dense:
        dense, same = run_dense(options, whole, neighbors, lists, labels, scores)
    print("| | dense CPU s | ours | ratio | dense MiB | ours | equal |\n|---|" + "---|" * 6)
    for name, cost in stages.items():
        other = dense.get(name)
        seconds, ratio, mib = "", "", ""
        if other is not None:
            seconds, mib = f"{other.seconds:.2f}", f"{other.memory:.0f}"
            ratio = f"{other.seconds / cost.seconds:.1f}"
        ours = f"{cost.seconds:.3f}"
        print(
            f"| {name} | {seconds} | {ours} | {ratio} | {mib} | {cost.memory:.0f} |"
            f" {same.get(name, '')} |"
        )
    clustered = labels >= 0
    ari = adjusted_rand_score(ids[clustered], labels[clustered])
    print(
        f"\n{int(labels.max()) + 1} clusters of {int(ids.max()) + 1} identities, "
        f"{100 * float((~clustered).float().mean()):.1f} % outliers, ARI of the rest {ari:.3f}"
    )


def run_dense(
    options: argparse.Namespace,
    whole: Tensor,
    neighbors: Tensor,
    lists: list[Tensor],
    labels: Tensor,
    scores: list[Tensor],
) -> tuple[dict[str, Cost], dict[str, str]]:
    """Takes the authors' costs, and tells whether their results are ours."""
    own = torch.arange(len(whole))[:, None]
    without = [  # the image itself; it is in its list, for no drawn image has a duplicate
        near[:, : options.agreement_k + 1][near[:, : options.agreement_k + 1] != own]
        .view(len(own), -1)
        .numpy()
        for near in (neighbors, *lists)
    ]
    expected_scores, agreement = measure(
        lambda: [dense_labels.agreement(without[0], part) for part in without[1:]]
    )
    distance, jaccard = measure(
        lambda: dense_labels.jaccard(whole, neighbors.numpy(), options.k1, options.k2)
    )
    expected, clustering = measure(
        lambda: dense_labels.dbscan(distance, options.eps, options.min_samples)
    )
    peak = max(jaccard.memory, distance.nbytes / 2**20 + clustering.memory)
    costs = {
        "Jaccard distance": jaccard,
        "DBSCAN": clustering,
        "both": Cost(jaccard.seconds + clustering.seconds, peak),
        "agreement": agreement,
    }
    same_labels = np.array_equal(labels.numpy(), expected)
    same_scores = all(
        np.allclose(ours.numpy(), theirs, atol=1e-6)
        for ours, theirs in zip(scores, expected_scores, strict=True)
    )
    return costs, {"both": _yes(same_labels), "agreement": _yes(same_scores)}


def across_ranks(options: argparse.Namespace) -> None:
    """Prints what the whole stage takes on each of several processes, and on one alone."""
    print(
        "| ranks | seconds | CPU s of each | peak MiB of each | received MiB of each |\n|"
        + "---|" * 5
    )
    results, stages = [], []
    for ranks in sorted({1, options.ranks}):
        with tempfile.TemporaryDirectory() as folder:
            mp.spawn(_work, (ranks, folder, options), nprocs=ranks)
            files = [Path(folder) / f"{rank}.pt" for rank in range(ranks)]
            shares = [torch.load(file, weights_only=True) for file in files]
        columns = ("cpu", "memory", "received")
        each = (" ".join(f"{share[name]:.1f}" for share in shares) for name in columns)
        print(f"| {ranks} | {max(s['seconds'] for s in shares):.1f} | {' | '.join(each)} |")
        results += [share["labels"] for share in shares]
        each_stage = (f"{name} {seconds:.3f}" for name, seconds in shares[0]["stages"].items())
        stages.append(f"{ranks}: {', '.join(each_stage)}")
    same = all(torch.equal(labels, results[0]) for labels in results)
    print("\nseconds of the first rank's stages, " + "; ".join(stages))
    print(f"labels equal on all ranks and numbers of ranks: {_yes(same)}")


def _work(rank: int, ranks: int, folder: str, options: argparse.Namespace) -> None:
    torch.set_num_threads(options.threads)
    compile_loops()
    dist.init_process_group(
        "gloo", f"file://{folder}/store", timedelta(days=1), world_size=ranks, rank=rank
    )
    (whole, _, cameras), parts = draw_spaces(options)
    own = torch.arange(len(whole)).tensor_split(ranks)[rank]
    features, part_features = whole[own], torch.stack([part[own] for part in parts], dim=2)
    del whole, parts
    labeler: Labeler = CameraDBSCAN(eps=options.eps, min_samples=options.min_samples)
    if not options.camera_jaccard:
        labeler = DBSCAN(
            k1=options.k1, k2=options.k2, eps=options.eps, min_samples=options.min_samples
        )
    if torch.cuda.is_available():  # wake it
        few = Space.of(features[:2000], part_features[:2000], cameras=cameras[own][:2000])
        begin_epoch(labeler, few, options.agreement_k)
    share = Share(len(features), dist.group.WORLD if ranks > 1 else None)
    space = Space(
        lambda: (features, part_features),
        share=share,
        cameras=cameras,
        backend=options.backend,
        index=options.index,
        probes=options.probes,
    )
    dist.barrier()
    start = time.perf_counter()
    classes, cost = measure(lambda: begin_epoch(labeler, space, options.agreement_k))
    torch.save(
        {
            "seconds": time.perf_counter() - start,
            "cpu": cost.seconds,
            "memory": cost.memory,
            "received": share.received / 2**20,
            "labels": classes,
            "stages": space.stages.seconds,
        },
        f"{folder}/{rank}.pt",
    )
    dist.barrier()
    dist.destroy_process_group()


def begin_epoch(labeler: Labeler, space: Space, k: int) -> Tensor:
    """Does all that comes before an epoch's first batch in PPLR, and returns the classes."""
    classes = labeler.label(space)
    neighbors = space.neighbors(k + 1)
    with space.stages("agreement"):
        scores = [
            overlap(neighbors, space.search(part, k + 1), k=k, start=space.share.start)
            for part in space.part_features.unbind(2)
        ]
        if scores:
            space.share.gather(torch.stack(scores, dim=1))
    with space.stages("centroids"):
        space.centroids(classes)
    return classes


def _yes(value: bool) -> str:
    return "yes" if value else "NO"


if __name__ == "__main__":
    main()
