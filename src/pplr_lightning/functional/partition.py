"""Clusters of a given number as pseudo labels."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from pplr_lightning.functional.checks import check_count, check_finite
from pplr_lightning.functional.engines import choose_engine, require_faiss, to_own_gpu


@torch.no_grad()
def kmeans(features: Tensor, *, num_clusters: int, seed: int = 0, iterations: int = 300) -> Tensor:
    """Divide images into clusters by k-means.

    Lloyd, "Least squares quantization in PCM", 1982: labels y and centres c lower

        sum_i ||f_i - c_{y_i}||^2

    in turn. Centres start at features that k-means++ draws (Arthur and Vassilvitskii, SODA 2007)
    and are not normalised. FAISS iterates where it is installed, on the GPU where it can, else
    scikit-learn. No image is an outlier.

    Args:
        features: Any real rows, (N, D).
        num_clusters: Clusters, 1 <= ``num_clusters`` <= N; fewer come out where one ends empty, as
            with duplicates.
        seed: Draws the first centres; the same labels come out for the same seed, on the same
            machine.
        iterations: Most rounds of the two, >= 1.

    Returns:
        Labels 0, 1, ... without gaps, (N,) int64 on the CPU.

    Raises:
        ValueError: ``features`` are not 2-D or not finite, ``num_clusters`` or ``iterations`` is
            out of range, or two FAISS wheels are installed.

    Example:
        >>> features = torch.tensor([[0.0], [0.1], [5.0], [5.1], [0.2]])
        >>> labels = kmeans(features, num_clusters=2)
        >>> labels == labels[0]
        tensor([ True,  True, False, False,  True])
    """
    check_finite(features)
    check_count("num_clusters", num_clusters, len(features))
    check_count("iterations", iterations)
    rows = np.ascontiguousarray(features.detach().float().cpu().numpy())
    # Imported here: `import pplr_lightning` need not wait for it.
    from sklearn.cluster import KMeans, kmeans_plusplus

    try:
        faiss = require_faiss("kmeans")
    except ImportError:
        model = KMeans(num_clusters, n_init=1, max_iter=iterations, random_state=seed)
        labels = model.fit(rows).labels_
    else:
        model = faiss.Kmeans(
            rows.shape[1],
            num_clusters,
            niter=iterations,
            seed=seed,
            min_points_per_centroid=1,  # no warning
            max_points_per_centroid=len(rows),  # no sample
        )
        if choose_engine("faiss") == "faiss-gpu":
            model.index = to_own_gpu(model.index)
        # FAISS's own random start ends in worse minima, and only its latest releases know another.
        start, _ = kmeans_plusplus(rows, num_clusters, random_state=seed)
        model.train(rows, init_centroids=start)
        labels = model.assign(rows)[1]
    numbers = np.unique(labels, return_inverse=True)[1]  # without those of empty clusters
    return torch.from_numpy(numbers.reshape(-1).astype(np.int64))
