"""Points between clusters that stand for images not seen: implicit sample extension (ISE)."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from pplr_lightning.functional.checks import check_count, check_labels, check_shape

FLOOR = 1e-6  # within and beside the quotient, as in the authors' code


def support_samples(
    features: Tensor, targets: Tensor, prototypes: Tensor, *, degree: float, neighbors: int = 1
) -> Tensor:
    """Move images from their own cluster's prototype towards the nearest others (ISE).

        s = unit(u_i + degree / 2 (c_a - c_y)),    y = y_i

    for each of the ``neighbors`` clusters a ≠ y whose prototypes are most similar to u_i (Zhang et
    al., "Implicit Sample Extension for Unsupervised Person Re-Identification", CVPR 2022).

    Args:
        features: u, L2-normalised, (B, D).
        targets: Clusters 0 to C - 1, (B,).
        prototypes: c, no gradient flows to them, (C, D).
        degree: The paper's lambda; its code halves it here once more.
        neighbors: Clusters per image, at most C - 1.

    Returns:
        L2-normalised, image after image, the nearest cluster first, (B * neighbors, D).

    Raises:
        ValueError: The shapes do not fit, there are too few clusters, or ``targets`` on the CPU are
            out of range (on a GPU the device's own assertion fails).

    Example:
        >>> support_samples(torch.eye(2), torch.tensor([0, 1]), torch.eye(2), degree=1.0)
        tensor([[0.7071, 0.7071],
                [0.7071, 0.7071]])
    """
    if features.ndim != 2 or prototypes.ndim != 2 or features.shape[1] != prototypes.shape[1]:
        raise ValueError(
            f"features must be (B, D) and prototypes (C, D), got shapes {tuple(features.shape)} "
            f"and {tuple(prototypes.shape)}; give both the same width"
        )
    check_labels("targets", targets, len(features), len(prototypes))
    check_count("neighbors", neighbors)
    if neighbors >= len(prototypes):
        raise ValueError(
            f"neighbors must be below the number of clusters, got {neighbors} of "
            f"{len(prototypes)}; lower neighbors"
        )
    rows = prototypes.detach().to(features.dtype)
    scores = features.detach() @ rows.T
    scores = scores.scatter(1, targets[:, None], -torch.inf)
    nearest = scores.topk(neighbors, dim=1).indices  # (B, k)
    directions = rows[nearest] - rows[targets][:, None]  # (B, k, D)
    moved = features[:, None] + 0.5 * degree * directions
    return F.normalize(moved, dim=2).flatten(0, 1)


def support_degree(step: int, steps: int, *, base: float = 1.0) -> float:
    """Say how far `support_samples` moves in a step of a run (ISE).

        lambda = base / 2 ln((e - 1) step / steps + 1)

    Args:
        step: Of the run, 0 to ``steps`` - 1.
        steps: Of the whole run, above 0.
        base: The paper's lambda_0.

    Returns:
        lambda, from 0 to ``base`` / 2.

    Example:
        >>> [round(support_degree(step, 100), 3) for step in (0, 50, 99)]
        [0.0, 0.31, 0.497]
    """
    return 0.5 * base * math.log((math.e - 1) * step / steps + 1)


def label_preserving_loss(
    features: Tensor,
    supports: Tensor,
    targets: Tensor,
    support_targets: Tensor,
    *,
    temperature: float = 0.6,
) -> Tensor:
    """Keep images nearer to all supports of their cluster than to any of another's (ISE).

    With e_ij = exp(u_i · s_j / t), the least similar support of the own cluster has
    p_i = min_{j: y_j = y_i} e_ij, and the most similar of each other cluster of the batch

        loss_i = -log(p_i / (p_i + sum_{k ≠ y_i} max_{j: y_j = k} e_ij + 1e-6) + 1e-6).

    Args:
        features: u, taken as they are, (B, D).
        supports: s, taken as they are, of all processes where there are several, (M, D).
        targets: Clusters of the features, (B,).
        support_targets: Clusters of the supports, (M,).
        temperature: t, > 0.

    Returns:
        Mean over the batch, a scalar. An image without a support of its cluster adds 0 and is
        counted in B.

    Raises:
        ValueError: The shapes do not fit, or ``temperature`` is out of range.

    Example:
        >>> rows, targets = torch.eye(2), torch.tensor([0, 1])
        >>> label_preserving_loss(rows, rows, targets, targets, temperature=1.0)
        tensor(0.3133)
    """
    if features.ndim != 2 or supports.ndim != 2 or features.shape[1] != supports.shape[1]:
        raise ValueError(
            f"features must be (B, D) and supports (M, D), got shapes {tuple(features.shape)} and "
            f"{tuple(supports.shape)}; give both the same width"
        )
    check_shape("targets", targets, (len(features),))
    check_shape("support_targets", support_targets, (len(supports),), "give one per support")
    if temperature <= 0:
        raise ValueError(f"temperature must be above 0, got {temperature}; ISE uses 0.6")
    scores = features @ supports.T / temperature  # (B, M)
    same = targets[:, None] == support_targets
    counted = same.any(dim=1)
    # In logarithms, where nothing overflows whatever the temperature.
    positive = scores.masked_fill(~same & counted[:, None], torch.inf).amin(dim=1, keepdim=True)
    # How many targets are smaller: a number below M of its own for every cluster, whatever C is.
    columns = (support_targets[:, None] > support_targets).sum(dim=1).expand_as(scores)
    others = torch.full_like(scores, -torch.inf).scatter_reduce(
        1, columns, scores.masked_fill(same, -torch.inf), "amax"
    )
    floor = torch.full_like(positive, math.log(FLOOR))
    log_sum = torch.cat([positive, others, floor], dim=1).logsumexp(dim=1)
    losses = -((positive[:, 0] - log_sum).exp() + FLOOR).log()
    return losses.masked_fill(~counted, 0).mean()
