"""Cross agreement: how far the global and the part feature spaces see the same neighbours."""

from __future__ import annotations

import torch
from torch import Tensor

from pplr_lightning.functional.neighbors import (
    check_count,
    check_features,
    check_neighbors,
    nearest_neighbors,
)


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

    C_i(g, p_n) = |R_i(g, k) ∩ R_i(p_n, k)| / |R_i(g, k) ∪ R_i(p_n, k)|, with R_i(f, k) the k
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
    if features_part.ndim != 3 or len(features_part) != len(features_global):
        raise ValueError(
            f"features_part must be ({len(features_global)}, D, P), got shape "
            f"{tuple(features_part.shape)}; stack the parts along the last dimension"
        )
    check_count("k", k, len(features_global) - 1)
    if neighbors is None:
        neighbors = nearest_neighbors(features_global, k + 1, backend=backend)
    else:
        check_features(features_global, "features_global")
        check_neighbors(neighbors, len(features_global), k + 1)
    device = features_part.device
    near_global = drop_self(neighbors[:, : k + 1].to(device))
    scores = [
        _overlap(near_global, drop_self(nearest_neighbors(part, k + 1, backend=backend)))
        for part in features_part.unbind(dim=2)
    ]
    return torch.stack(scores, dim=1)


def drop_self(neighbors: Tensor) -> Tensor:
    """Remove each image from its own list, (N, k + 1) to (N, k).

    Where duplicates have pushed the image out of its own list, the last neighbour goes.
    """
    count, columns = neighbors.shape
    is_self = neighbors == torch.arange(count, device=neighbors.device)[:, None]
    is_self[~is_self.any(dim=1), -1] = True
    return neighbors[~is_self].view(count, columns - 1)


def _overlap(first: Tensor, second: Tensor) -> Tensor:
    """Return |A ∩ B| / |A ∪ B| for every row of two (N, k) sets of indices."""
    # What is in both sets stands side by side once the joined row is sorted.
    joined = torch.cat([first, second], dim=1).sort(dim=1).values
    shared = (joined[:, 1:] == joined[:, :-1]).sum(dim=1)
    return shared.float() / (joined.shape[1] - shared).float()
