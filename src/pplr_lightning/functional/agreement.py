"""Cross agreement: how far the global and the part feature spaces see the same neighbours."""

from __future__ import annotations

from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pplr_lightning.functional.checks import (
    check_count,
    check_features,
    check_neighbors,
    check_shape,
)
from pplr_lightning.functional.compiled import compiled, over_rows
from pplr_lightning.functional.neighbors import nearest_neighbors


@torch.no_grad()
def cross_agreement(
    features_global: Tensor,
    features_part: Tensor,
    *,
    k: int = 20,
    neighbors: Tensor | None = None,
    backend: str = "auto",
) -> Tensor:
    """Score how reliable each part's view of each image is.

    ``C_i(g, p_n) = |R_i(g, k) ∩ R_i(p_n, k)| / |R_i(g, k) ∪ R_i(p_n, k)|``, with R_i(f, k) the k
    nearest neighbours of image i in the space of feature f (PPLR, Cho et al., CVPR 2022, eq. 2).

    Args:
        features_global: L2-normalised rows, (N, D).
        features_part: L2-normalised along D for each part, (N, D', P).
        k: Number of neighbours, the image itself **not** included, 1 <= k < N.
        neighbors: Result of `nearest_neighbors` on ``features_global`` with k + 1 or more
            columns (the image itself included), if there is one already.
        backend: Search engine, as for `nearest_neighbors`.

    Returns:
        Agreements in [0, 1], (N, P) float32, on the device of ``features_part``.

    Raises:
        ValueError: A feature is not finite or not normalised, a shape does not fit, or ``k`` is
            out of range.
    """
    if (
        features_part.ndim != 3
        or not features_part.shape[2]
        or len(features_part) != len(features_global)
    ):
        raise ValueError(
            f"features_part must be ({len(features_global)}, D, P), got shape "
            f"{tuple(features_part.shape)}; stack one part or more along the last dimension"
        )
    check_count("k", k, len(features_global) - 1)
    if neighbors is None:
        neighbors = nearest_neighbors(features_global, k + 1, backend=backend)
    else:
        check_features(features_global, "features_global")
        check_neighbors(neighbors, len(features_global), k + 1)
    near_global = neighbors.cpu()
    scores = [
        overlap(near_global, nearest_neighbors(part, k + 1, backend=backend).cpu(), k=k)
        for part in features_part.unbind(dim=2)
    ]
    return torch.stack(scores, dim=1).to(features_part.device)


def relative_agreement(agreement: Tensor, classes: Tensor) -> Tensor:
    """Compare each image's agreement with what is usual for its part in this epoch.

    ``min(1, C_in / mean_j C_jn)``, the mean over the images j that have a class: how far two
    spaces agree depends on the data, on k and on how far the training is, and a part that agrees
    as well as most says nothing against an image's label.

    Args:
        agreement: As of `cross_agreement`, (N, P).
        classes: Class of each image, -1 for none, (N,).

    Returns:
        In [0, 1], (N, P); 1 where a part agrees nowhere.

    Raises:
        ValueError: The shapes do not fit, or no image has a class.

    Example:
        >>> agreement = torch.tensor([[0.2], [0.6], [0.4], [0.0]])
        >>> relative_agreement(agreement, torch.tensor([0, 0, 1, -1])).flatten().tolist()
        [0.5, 1.0, 1.0, 0.0]
    """
    check_shape("classes", classes, (len(agreement),))
    clustered = agreement[classes >= 0]
    if not len(clustered):
        raise ValueError(
            "classes must hold one that is 0 or above, got -1 alone; label images first"
        )
    usual = clustered.mean(dim=0)
    return (agreement / usual).clamp(max=1).nan_to_num(nan=1.0)


def overlap(first: Tensor, second: Tensor, *, k: int, start: int = 0) -> Tensor:
    """Return |A ∩ B| / |A ∪ B| of the k nearest of each image without itself, (n,) float32.

    Where duplicates have pushed an image out of its own list, its last neighbour goes instead.

    Args:
        first: Lists of n images, the image itself included, on the CPU, (n, >= k + 1).
        second: Their lists in another space, likewise.
        k: Neighbours that are compared, the image itself not included.
        start: Index of the first of the n images.

    Raises:
        ValueError: The lists do not fit together, or are too short.
    """
    if len(first) != len(second) or min(first.shape[1], second.shape[1]) <= k:
        raise ValueError(
            f"lists must be of equally many images and hold k + 1 = {k + 1} columns, got shapes "
            f"{tuple(first.shape)} and {tuple(second.shape)}; search both spaces with k + 1"
        )
    left, right = (lists[:, : k + 1].contiguous().numpy() for lists in (first, second))
    images = 1 + int(max(left.max(initial=0), right.max(initial=0)))
    count = partial(count_shared, left, right, images, start)
    counts = torch.from_numpy(np.concatenate(over_rows(count, range(len(left)), chunk=2**14)))
    return counts.float() / (2 * k - counts).float()


@compiled
def count_shared(
    first: NDArray[np.int64],
    second: NDArray[np.int64],
    images: int,
    start: int,
    low: int,
    high: int,
) -> NDArray[np.int64]:
    """Count for some rows the images that both their lists hold."""
    k = first.shape[1] - 1
    shared = np.zeros(high - low, dtype=np.int64)
    seen_by = np.full(images, -1, dtype=np.int64)  # the last row whose first list an image was in
    for row in range(low, high):
        own = start + row  # in the place of the image itself stands the last of its list
        for image in first[row, :k]:
            seen_by[image if image != own else first[row, k]] = row
        for image in second[row, :k]:
            shared[row - low] += seen_by[image if image != own else second[row, k]] == row
    return shared
