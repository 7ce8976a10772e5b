"""Scores of query-to-gallery retrieval: mAP, mINP and CMC."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

CHUNK_BYTES = 2**26  # temporary memory of the queries scored at once


@torch.no_grad()
def retrieval_metrics(
    distance: Tensor,
    query_ids: Tensor,
    gallery_ids: Tensor,
    query_cameras: Tensor,
    gallery_cameras: Tensor,
    *,
    topk: Sequence[int] = (1, 5, 10),
) -> dict[str, float]:
    """Score how well each query ranks the gallery images of its identity.

    The protocol of Market-1501 (Zheng et al., ICCV 2015): gallery images of the query's identity
    *and* camera are left out, and so is junk, identity -1. Queries without a match left are not
    counted. mAP is the mean of scikit-learn's average precision (equal distances share a
    threshold); rank-k the share of queries whose first match is among the k nearest (the CMC curve;
    of equal distances the lowest gallery index comes first); mINP the mean of the number of
    matches over the rank of the last one (Ye et al., TPAMI 2021).

    Args:
        distance: Smaller is nearer, (Q, G).
        query_ids: Identities, (Q,).
        gallery_ids: Identities, -1 is junk, (G,).
        query_cameras: Cameras, (Q,).
        gallery_cameras: Cameras, (G,).
        topk: The k of rank-k, each >= 1; beyond the end of the gallery rank-k is 1.

    Returns:
        ``mAP``, ``mINP`` and ``rank-k`` for each k, in [0, 1].

    Raises:
        ValueError: The shapes do not fit, ``distance`` is not finite, ``topk`` is empty or holds
            a value below 1, or no query has a match.
    """
    _check_inputs(distance, query_ids, gallery_ids, query_cameras, gallery_cameras, topk)
    device = distance.device
    ids, cameras = gallery_ids.to(device), gallery_cameras.to(device)
    rows = max(1, CHUNK_BYTES // (50 * max(1, distance.shape[1])))
    chunks = zip(
        torch.split(distance, rows),
        torch.split(query_ids.to(device), rows),
        torch.split(query_cameras.to(device), rows),
        strict=True,
    )
    scores = []
    for block, query_id, query_camera in chunks:
        same = query_id[:, None] == ids
        ignored = (same & (query_camera[:, None] == cameras)) | (ids == -1)
        scores.append(_score(block, same & ~ignored, ignored))
    precision, first, inverse = torch.cat(scores, dim=1)
    if not len(precision):
        raise ValueError(
            f"no query can be counted, got {len(query_ids)} queries of which none has its "
            "identity in the gallery under another camera; check the ids and cameras"
        )
    result = {"mAP": float(precision.mean()), "mINP": float(inverse.mean())}
    result.update({f"rank-{k}": float((first <= k).double().mean()) for k in topk})
    return result


def _score(distance: Tensor, positive: Tensor, ignored: Tensor) -> Tensor:
    """Return average precision, first match's rank and inverse penalty of some queries.

    Nothing is sorted but the matches: each image is counted where it falls between them.

    Args:
        distance: (q, G).
        positive: Matches to be found, (q, G) bool.
        ignored: Images that are taken out of the ranking, (q, G) bool.

    Returns:
        (3, q') float64 of the q' queries that have a match.
    """
    counted = positive.any(dim=1)
    # What is ignored ranks behind all else, where it changes nothing.
    distance = distance.masked_fill(ignored, torch.inf)[counted]
    positive = positive[counted]
    total = positive.sum(dim=1)
    if not len(total):
        return distance.new_empty(3, 0, dtype=torch.float64)
    to_match = distance.masked_fill(~positive, torch.inf)
    nearest = to_match.topk(int(total.max()), largest=False).values  # (q', M), the rest is inf

    # AP: the mean over the matches of the precision at their distance.
    slot = torch.searchsorted(nearest, distance)  # the first match that is not nearer, (q', G)
    ranked = _count_rows(slot, nearest.shape[1] + 1).cumsum(dim=1)[:, :-1]
    found = torch.searchsorted(nearest, nearest, right=True)
    precision = (found / ranked.double()).masked_fill(nearest.isinf(), 0).sum(dim=1) / total

    first = to_match.argmin(dim=1)  # the lowest index among equals
    backwards = distance.masked_fill(~positive, -torch.inf).flip(dims=[1])
    last = distance.shape[1] - 1 - backwards.argmax(dim=1)  # the highest among equals
    inverse = total / _rank(distance, last).double()
    return torch.stack([precision, _rank(distance, first).double(), inverse])


def _count_rows(values: Tensor, bins: int) -> Tensor:
    """Count how often 0 to bins - 1 occur in each row, (q, G) to (q, bins)."""
    offset = bins * torch.arange(len(values), device=values.device)[:, None]
    return (values + offset).flatten().bincount(minlength=bins * len(values)).view(-1, bins)


def _rank(distance: Tensor, image: Tensor) -> Tensor:
    """Return the rank from 1 of one image per row; lower indices come first among equals."""
    reference = distance.gather(1, image[:, None])
    index = torch.arange(distance.shape[1], device=distance.device)
    before = (distance < reference) | ((distance == reference) & (index <= image[:, None]))
    return before.sum(dim=1)


def _check_inputs(
    distance: Tensor,
    query_ids: Tensor,
    gallery_ids: Tensor,
    query_cameras: Tensor,
    gallery_cameras: Tensor,
    topk: Sequence[int],
) -> None:
    expected = (len(query_ids), len(gallery_ids))
    if tuple(distance.shape) != expected:
        raise ValueError(
            f"distance must be (queries, gallery), {expected}, got shape {tuple(distance.shape)}; "
            "give one id per row and per column"
        )
    if not distance.numel():
        raise ValueError(f"distance must not be empty, got shape {expected}; check the data set")
    for side, cameras, ids in (
        ("query", query_cameras, query_ids),
        ("gallery", gallery_cameras, gallery_ids),
    ):
        if cameras.shape != ids.shape:
            raise ValueError(
                f"{side}_cameras must have shape {tuple(ids.shape)} like {side}_ids, got "
                f"{tuple(cameras.shape)}; give one camera per image"
            )
    if not len(topk) or min(topk) < 1:
        raise ValueError(f"topk must hold ranks of 1 or more, got {tuple(topk)}; try (1, 5, 10)")
    low, high = distance.aminmax()  # both are NaN if a value is
    if not (low.isfinite() and high.isfinite()):
        raise ValueError(
            f"distance must be finite, got {int((~distance.isfinite()).sum())} values of NaN or "
            "Inf; check the features"
        )
