"""The label stage as the authors wrote it: dense matrices, one image after the other in Python.

Written anew from the algorithm, to be compared with; it holds several N x N matrices.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from sklearn.cluster import DBSCAN
from torch import Tensor


def jaccard(features: Tensor, lists: NDArray[np.int64], k1: int, k2: int) -> NDArray[np.float32]:
    """The k-reciprocal Jaccard distance of all pairs, (N, N)."""
    count = len(lists)
    reciprocal = [_mutual(image, lists, k1) for image in range(count)]
    core = [_mutual(image, lists, round(k1 / 2) + 1) for image in range(count)]
    encoding = np.zeros((count, count), dtype=np.float32)
    for image, members in enumerate(reciprocal):
        expanded = members
        for candidate in members:
            if len(np.intersect1d(core[candidate], members)) > 2 / 3 * len(core[candidate]):
                expanded = np.append(expanded, core[candidate])
        expanded = np.unique(expanded)
        similarity = features[image] @ features[expanded].T
        encoding[image, expanded] = (2 * similarity - 2).softmax(dim=0).numpy()
    if k2 > 1:
        average = np.zeros_like(encoding)
        for image in range(count):
            average[image] = encoding[lists[image, :k2]].mean(axis=0)
        encoding = average
    by_column = [np.flatnonzero(encoding[:, column]) for column in range(count)]
    distance = np.zeros((count, count), dtype=np.float32)
    for image in range(count):
        shared = np.zeros(count, dtype=np.float32)
        for column in np.flatnonzero(encoding[image]):
            others = by_column[column]
            shared[others] += np.minimum(encoding[image, column], encoding[others, column])
        distance[image] = 1 - shared / (2 - shared)
    return np.maximum(distance, 0, out=distance)


def dbscan(distance: NDArray[np.float32], eps: float, min_samples: int) -> NDArray[np.int64]:
    """Labels by scikit-learn, a pair at eps + 1e-6 being near, (N,)."""
    model = DBSCAN(eps=eps + 1e-6, min_samples=min_samples, metric="precomputed")
    return model.fit_predict(distance)


def agreement(lists: NDArray[np.int64], part: NDArray[np.int64]) -> NDArray[np.float64]:
    """The cross agreement of two sets of lists without the image itself, (N,)."""
    return np.array(
        [
            len(np.intersect1d(a, b)) / len(np.union1d(a, b))
            for a, b in zip(lists, part, strict=True)
        ]
    )


def _mutual(image: int, lists: NDArray[np.int64], columns: int) -> NDArray[np.int64]:
    forward = lists[image, :columns]
    return forward[np.nonzero(lists[forward, :columns] == image)[0]]
