"""Which label-free numbers tell right pseudo labels from wrong ones, and who could mend them.

    python benchmarks/reliability.py --root <folder in Market-1501's layout> \
        --ckpt_path runs/ablation/runs/neither-0/checkpoints/last.ckpt

A label is right where most images of its cluster are of the image's identity; an image's precision
is the share of the others of its cluster that are of its identity. Identities are used for that
alone. The area under the ROC curve is 0.5 for a number that says nothing. Righted and wronged: the
share of the clustered images whose label would become right, or wrong, if the space that is named
were followed instead (the cluster of the nearest mean, or most frequent among neighbours).
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

import torch
from scipy.stats import spearmanr
from sklearn.metrics import roc_auc_score, silhouette_samples
from torch import Tensor

from pplr_lightning import PPLRModule
from pplr_lightning import functional as F
from pplr_lightning.data import Market1501
from pplr_lightning.evaluation.label_quality import label_quality


def main(arguments: Sequence[str] | None = None) -> None:
    """Embeds the training images, labels them and prints both tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--root", required=True)
    parser.add_argument("--ckpt_path", required=True)
    parser.add_argument("--k1", type=int, default=30)
    parser.add_argument("--k2", type=int, default=6)
    parser.add_argument("--eps", type=float, default=0.5)
    parser.add_argument("--min_samples", type=int, default=4)
    options = parser.parse_args(arguments)

    module = PPLRModule.load_from_checkpoint(options.ckpt_path)
    samples = Market1501(options.root).load().train
    spaces = embed(module, [sample.path for sample in samples])
    persons = torch.tensor([sample.person_id for sample in samples])
    distance = F.jaccard_distance(spaces["global"], k1=options.k1, k2=options.k2)
    classes = F.dbscan(distance, eps=options.eps, min_samples=options.min_samples)
    compare(spaces, classes, persons)


def embed(module: PPLRModule, paths: list[str]) -> dict[str, Tensor]:
    """Unit features (N, D) of each space, by its name."""
    parts = module.network.num_parts
    joined = module.embed(paths, kind="both")  # unit vectors over the root of their number
    whole, *stripes = ((1 + parts) ** 0.5 * joined).chunk(1 + parts, dim=1)
    return {"global": whole, **{f"part {n}": stripe for n, stripe in enumerate(stripes, 1)}}


def compare(spaces: dict[str, Tensor], classes: Tensor, persons: Tensor) -> None:
    """Prints how well each score follows the truth, and what each space makes of the labels."""
    clustered = classes >= 0
    _, rows = persons.unique(return_inverse=True)
    identity, precision = match(classes[clustered], rows[clustered])
    right = identity[classes[clustered]] == rows[clustered]
    print(
        f"{len(identity)} clusters, {100 * (~clustered).float().mean():.0f} % outliers, "
        f"ARI {label_quality(classes, persons).ari:.2f}, {percent(right)} % of the labels right\n"
    )
    print("| score of an image | mean | AUC for a right label | Spearman's with precision |")
    print("|---|---|---|---|")
    for name, score in scores(spaces, classes).items():
        own = score[clustered]
        auc, rank = roc_auc_score(right, own), spearmanr(own, precision)[0]
        print(f"| {name} | {own.mean():.2f} | {auc:.2f} | {rank:.2f} |")
    print("\n| labels by | right | righted | wronged |\n|---|---|---|---|")
    for name, cluster in other_labels(spaces, classes).items():
        then = identity[cluster[clustered]] == rows[clustered]
        shares = (then, then & ~right, right & ~then)
        print(f"| {name} | {' | '.join(percent(share) for share in shares)} |")


def match(classes: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
    """The identity of most images of each cluster (K,), and each image's precision (N,)."""
    counts = torch.zeros(int(classes.max()) + 1, int(rows.max()) + 1)
    counts.index_put_((classes, rows), torch.tensor(1.0), accumulate=True)
    others = counts.sum(dim=1)[classes] - 1
    return counts.argmax(dim=1), (counts[classes, rows] - 1) / others.clamp(min=1)


def scores(spaces: dict[str, Tensor], classes: Tensor) -> dict[str, Tensor]:
    """What might tell whether an image's label is right, each (N,)."""
    whole, *parts = spaces.values()
    found = {}
    for k in (5, 10, 20, 40):
        agreement = F.cross_agreement(whole, torch.stack(parts, dim=2), k=k)
        found[f"cross agreement, k {k}, mean of the parts"] = agreement.mean(dim=1)
    sizes = torch.bincount(classes[classes >= 0])
    for name, features in spaces.items():
        neighbors = F.nearest_neighbors(features, int(sizes.max()))
        found[f"cluster agreement, {name}"] = cluster_agreement(neighbors, classes)
    cosines = whole @ F.cluster_centroids(whole, classes).T
    own = cosines.gather(1, classes.clamp(min=0)[:, None])
    others = cosines.scatter(1, classes.clamp(min=0)[:, None], -1)
    found["cosine to the own mean, less that to the next"] = own[:, 0] - others.amax(dim=1)
    silhouette = torch.zeros(len(classes))
    clustered = classes >= 0
    values = silhouette_samples(whole[clustered].numpy(), classes[clustered].numpy())
    silhouette[clustered] = torch.from_numpy(values).float()
    found["silhouette"] = silhouette
    found["size of the cluster, negative"] = -sizes[classes.clamp(min=0)].float()
    return found


def cluster_agreement(neighbors: Tensor, classes: Tensor) -> Tensor:
    """How far a space sees the clusters as they were found, (N,).

    Of as many nearest neighbours (N, k, the image itself included) as an image's cluster has other
    images, the share that is of this cluster; 0 for outliers.
    """
    sizes = torch.bincount(classes + 1)  # the first is that of the outliers
    count = (sizes[classes + 1] - 1).where(classes >= 0, 0).clamp(max=neighbors.shape[1] - 1)
    others = neighbors != torch.arange(len(classes))[:, None]
    looked_at = others & (others.cumsum(dim=1) <= count[:, None])
    shared = (looked_at & (classes[neighbors] == classes[:, None])).sum(dim=1)
    return shared / count.clamp(min=1)


def other_labels(spaces: dict[str, Tensor], classes: Tensor) -> dict[str, Tensor]:
    """Clusters that spaces would give the images, each (N,)."""
    found = {}
    for name, features in spaces.items():
        centroids = F.cluster_centroids(features, classes)
        found[f"the nearest mean, {name}"] = (features @ centroids.T).argmax(dim=1)
        near = classes[F.nearest_neighbors(features, 11)[:, 1:]]
        votes = torch.zeros(len(features), len(centroids))
        votes.scatter_add_(1, near.clamp(min=0), (near >= 0).float())
        found[f"10 neighbours, {name}"] = votes.argmax(dim=1)
    return found


def percent(share: Tensor) -> str:
    """The share of what is true, in %."""
    return f"{100 * share.float().mean():.1f}"


if __name__ == "__main__":
    main()
