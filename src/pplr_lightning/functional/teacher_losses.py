"""What a network learns from a mean teacher's view of the same images."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from pplr_lightning.functional.checks import check_shape


def soft_cross_entropy(logits: Tensor, teacher_logits: Tensor) -> Tensor:
    """Cross entropy with a teacher's prediction for the label (MMT, eq. 6).

    mean_i of -sum_c q'_ic log q_ic, with q and q' the softmax of student and teacher (Ge et al.,
    "Mutual Mean-Teaching", ICLR 2020).

    Args:
        logits: Of the student, (B, C).
        teacher_logits: Of the teacher, a target without a gradient, (B, C).

    Returns:
        Mean over the batch, a scalar.

    Raises:
        ValueError: The shapes do not fit.

    Example:
        >>> soft_cross_entropy(torch.zeros(1, 2), torch.tensor([[0.0, 9.0]]))
        tensor(0.6931)
    """
    if logits.ndim != 2:
        raise ValueError(
            f"logits must be (B, C), got shape {tuple(logits.shape)}; one row an image"
        )
    check_shape("teacher_logits", teacher_logits, tuple(logits.shape), "score the same classes")
    told = teacher_logits.detach().softmax(dim=1)
    return -(told * logits.log_softmax(dim=1)).sum(dim=1).mean()


def hard_instance_loss(
    queries: Tensor,
    keys: Tensor,
    query_targets: Tensor,
    key_targets: Tensor,
    *,
    temperature: float = 0.1,
) -> Tensor:
    """Pull an image to the least similar of its cluster's, away from all other clusters' (ICE).

    With s_ij the cosine of query i and key j over the temperature, P_i the keys of its cluster and
    N_i all others,

        loss_i = -log(e^p / (e^p + sum_{j in N_i} e^{s_ij})),    p = min_{j in P_i} s_ij

    (Chen et al., "ICE: Inter-instance Contrastive Encoding", ICCV 2021, eq. 4).

    Args:
        queries: Of the student, normalised here, (B, D).
        keys: Of the teacher, of the same images or of those of all processes, normalised here;
            detach them where they are no part of what learns, (M, D).
        query_targets: Clusters of the queries, (B,).
        key_targets: Clusters of the keys, (M,).
        temperature: Divides the cosine, > 0.

    Returns:
        Mean over the batch, a scalar. A query without a key of its cluster adds 0 and is counted in
        B.

    Raises:
        ValueError: The shapes do not fit, or ``temperature`` is out of range.

    Example:
        >>> rows, targets = torch.eye(2), torch.tensor([0, 1])
        >>> hard_instance_loss(rows, rows, targets, targets, temperature=1.0)
        tensor(0.3133)
    """
    scores = _scores(queries, keys, temperature, ("queries", "keys"))
    check_shape("query_targets", query_targets, (len(queries),))
    check_shape("key_targets", key_targets, (len(keys),))
    same = query_targets[:, None] == key_targets  # (B, M)
    counted = same.any(dim=1)
    # A row that is not counted keeps finite numbers, and is left out at the end.
    positive = scores.masked_fill(~same & counted[:, None], torch.inf).amin(dim=1, keepdim=True)
    negatives = scores.masked_fill(same, -torch.inf)
    losses = torch.cat([positive, negatives], dim=1).logsumexp(dim=1) - positive[:, 0]
    return losses.masked_fill(~counted, 0).mean()


def consistency_loss(
    queries: Tensor,
    keys: Tensor,
    weak_queries: Tensor,
    weak_keys: Tensor,
    *,
    temperature: float = 0.4,
) -> Tensor:
    """Keep images as similar under strong augmentation as a teacher finds them under a weak (ICE).

    mean_i of KL(P_i ‖ Q_i), where Q_i is the softmax over the keys of the cosines of query i over
    the temperature, and P_i the same of the weakly augmented images, a target without a gradient
    (Chen et al., ICCV 2021, eq. 7). The authors' code weighs it by 10.

    Args:
        queries: Of the student, normalised here, (B, D).
        keys: Of the teacher, normalised here, (M, D).
        weak_queries: The teacher's of the queries' images, weakly augmented, (B, D').
        weak_keys: The teacher's of the keys' images, likewise, (M, D').
        temperature: Divides the cosine, > 0.

    Returns:
        Mean over the batch, a scalar.

    Raises:
        ValueError: The shapes do not fit, or ``temperature`` is out of range.

    Example:
        >>> rows = torch.eye(3)
        >>> consistency_loss(rows, rows, rows, rows)
        tensor(0.)
    """
    scores = _scores(queries, keys, temperature, ("queries", "keys"))
    with torch.no_grad():
        told = _scores(weak_queries, weak_keys, temperature, ("weak_queries", "weak_keys"))
    check_shape("weak_queries @ weak_keys.T", told, tuple(scores.shape), "give the same images")
    log_told = told.to(scores.dtype).log_softmax(dim=1)
    return F.kl_div(scores.log_softmax(dim=1), log_told, reduction="batchmean", log_target=True)


def _scores(queries: Tensor, keys: Tensor, temperature: float, names: tuple[str, str]) -> Tensor:
    """Return the cosines of rows (B, D) and (M, D) over the temperature, (B, M)."""
    if queries.ndim != 2 or keys.ndim != 2 or queries.shape[1] != keys.shape[1]:
        raise ValueError(
            f"{names[0]} must be (B, D) and {names[1]} (M, D), got shapes {tuple(queries.shape)} "
            f"and {tuple(keys.shape)}; give both the same width"
        )
    if temperature <= 0:
        raise ValueError(f"temperature must be above 0, got {temperature}; ICE uses 0.1 and 0.4")
    return F.normalize(queries, dim=1) @ F.normalize(keys, dim=1).T / temperature
