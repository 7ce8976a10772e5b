"""Camera-aware Jaccard distance, sparse from end to end."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import sparse
from torch import Tensor

from pplr_lightning.functional.checks import (
    check_cameras,
    check_count,
    check_features,
    check_fraction,
)
from pplr_lightning.functional.engines import choose_engine, open_finder
from pplr_lightning.functional.jaccard import encoded_distance, mutual_neighbors
from pplr_lightning.functional.neighbor_lists import Lists, add_block, no_lists
from pplr_lightning.functional.sharding import Share


@torch.no_grad()
def camera_jaccard_distance(
    features: Tensor,
    cameras: Tensor,
    *,
    k1_intra: int = 5,
    k1_inter: int = 20,
    k2_intra: int = 2,
    k2_inter: int = 4,
    backend: str = "auto",
    max_distance: float = 1.0,
) -> sparse.csr_matrix:
    """Compute a Jaccard distance in which other cameras have neighbours of their own.

    Chen et al., "CA-Jaccard: Camera-aware Jaccard Distance for Person Re-identification", CVPR
    2024. Images of one camera resemble each other, and fill `jaccard_distance`'s lists. Here every
    image i is ranked twice, among the images of its own camera and among those of all others:

    - its neighbours E(i) are those of the first k1 of either ranking that have i among their
      first k1 of the same ranking (CKRNNs). They are not expanded further;
    - Q_i is the softmax of -(2 - 2cos) over E(i), averaged over the first k2_intra of the one and
      the first k2_inter of the other ranking, all with the same weight (CLQE);
    - d_ij = 1 - s_ij / (2 - s_ij),    s_ij = sum_c min(Q_ic, Q_jc).

    A list is shorter where a camera, or the others, have fewer images than it should hold. Both
    searches are exact. Sums, ties and memory are as for `jaccard_distance`.

    Args:
        features: L2-normalised rows, (N, D).
        cameras: Camera of each image, 0 or above, two or more in all, (N,).
        k1_intra: Images of the same camera that are tested for reciprocity, the image itself
            **not** included; it is tested, too.
        k1_inter: Images of other cameras that are tested for reciprocity; one more than this is,
            as in the authors' code.
        k2_intra: Images of the same camera whose encodings are averaged, the image itself included.
        k2_inter: Images of other cameras whose encodings are averaged.
        backend: As for `nearest_neighbors`.
        max_distance: Leave out pairs farther apart than this (plus 1e-6), in [0, 1].

    Returns:
        As `jaccard_distance`: symmetric (N, N) float32 matrix with sorted indices; a stored value
        is a distance in [0, 1], a pair that is not stored is at distance 1, or above
        ``max_distance``.

    Raises:
        ValueError: ``features`` are not 2-D, not finite or not normalised, a camera is not known
            (below 0) or all are the same, a count is below 1, or ``max_distance`` is out of range.
    """
    check_features(features)
    check_cameras(cameras, len(features))
    counts = {"k1_intra": k1_intra, "k1_inter": k1_inter}
    for name, count in {**counts, "k2_intra": k2_intra, "k2_inter": k2_inter}.items():
        check_count(name, count)
    check_fraction("max_distance", max_distance, "1 keeps all pairs")
    return camera_jaccard_rows(
        features,
        cameras.cpu(),
        Share(len(features)),
        k1=(k1_intra, k1_inter),
        k2=(k2_intra, k2_inter),
        backend=backend,
        max_distance=max_distance,
    )


def camera_jaccard_rows(
    features: Tensor,
    cameras: Tensor,
    share: Share,
    *,
    k1: tuple[int, int],
    k2: tuple[int, int],
    backend: str,
    max_distance: float,
) -> sparse.csr_matrix:
    """Compute this process's rows of `camera_jaccard_distance`, (n, N).

    The features are those of its rows, on the CPU where there are several processes; the cameras
    are those of all images, on the CPU. The counts come in pairs, intra before inter.
    """
    tested = k1[0] + 1, k1[1] + 1
    counts = max(tested[0], k2[0]), max(tested[1], k2[1])
    found = search_cameras(features, cameras, share, *counts, backend=backend)
    lists = [share.gather(part.int()).numpy() for part in found]
    mutual = [
        mutual_neighbors(part, columns, share.rows)
        for part, columns in zip(lists, tested, strict=True)
    ]
    members = joined_entries(np.concatenate(mutual, axis=1), share.total)
    nearest = np.concatenate([part[:, :k] for part, k in zip(lists, k2, strict=True)], axis=1)
    return encoded_distance(features, members, nearest, sum(k2), share, max_distance=max_distance)


@torch.no_grad()
def search_cameras(
    features: Tensor,
    cameras: Tensor,
    share: Share,
    k_intra: int,
    k_inter: int,
    *,
    backend: str = "auto",
) -> tuple[Tensor, Tensor]:
    """Find the most similar images of the same camera and of the others, exactly.

    Like `nearest_neighbors` it orders by dot products in float64, the lower index first among
    equals. Each camera's images, and all others, are copied while they are searched.

    Args:
        features: L2-normalised rows of this process, (n, D); on the CPU where there are several.
        cameras: Camera of each of the N images, on the CPU, (N,).
        share: The rows of this process among the N.
        k_intra: Neighbours of the same camera, the image itself included.
        k_inter: Neighbours of all other cameras together.
        backend: As for `nearest_neighbors`.

    Returns:
        Indices in 0 to N - 1, nearest first, (n, k_intra) and (n, k_inter) int64 on the CPU; -1
        behind them where a camera, or the others, have fewer images.
    """
    engine = choose_engine(backend)
    gallery = features.detach().float().contiguous()
    own = cameras[share.start : share.stop]
    members = {camera: (own == camera).nonzero().flatten() for camera in own.unique().tolist()}
    lists: dict[tuple[int, bool], Lists] = {}
    # A block is another process's share, or a part of it.
    for start, block in share.blocks(gallery):
        seen_by = cameras[start : start + len(block)]
        for camera, rows in members.items():
            for intra, k in ((True, k_intra), (False, k_inter)):
                places = ((seen_by == camera) == intra).nonzero().flatten()
                if len(places):
                    part = block[places]
                    known = lists.get((camera, intra)) or no_lists(len(rows), gallery.device)
                    find, places = open_finder(engine, part), (start + places).to(part.device)
                    lists[camera, intra] = add_block(known, gallery[rows], part, places, k, find)
    found = torch.full((len(own), k_intra), -1), torch.full((len(own), k_inter), -1)
    for (camera, intra), (indices, _) in lists.items():
        found[0 if intra else 1][members[camera], : indices.shape[1]] = indices.cpu()
    return found


def joined_entries(entries: NDArray[np.int32], columns: int) -> sparse.csr_matrix:
    """Return lists of images as the entries of a matrix.

    Args:
        entries: Columns in which each row has an entry, none of them twice, -1 for none, (n, k).
        columns: Columns of the matrix, N.

    Returns:
        (n, N) float64 matrix with sorted indices; its values mean nothing.
    """
    entries = np.sort(entries, axis=1)
    indptr = np.concatenate([[0], np.cumsum((entries >= 0).sum(axis=1))])
    indices = entries[entries >= 0]
    return sparse.csr_matrix((np.empty(len(indices)), indices, indptr), (len(entries), columns))
