"""The losses of PPLR (Cho et al., CVPR 2022), and that of cameras, which ICE has as well.

The plain part loss of the first epochs is torch's
``F.cross_entropy(logits, targets, label_smoothing=0.1)``; the triplet loss is in ``triplets.py``.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from pplr_lightning.functional.checks import check_count, check_fraction, check_shape


def aals_loss(logits: Tensor, targets: Tensor, agreement: Tensor) -> Tensor:
    """Agreement-aware label smoothing of one part (PPLR, eq. 5).

    mean_i of C_i CE(y_i, q_i) + (1 - C_i) KL(u ‖ q_i), with q = softmax(logits) and u uniform: the
    less a part agrees with the global feature, the less it is told about the label.

    Args:
        logits: Of one part, (B, C).
        targets: Clusters 0 to C - 1, (B,) int64, or distributions over them, (B, C).
        agreement: C_i in [0, 1], (B,).

    Returns:
        Mean over the batch, a scalar.

    Raises:
        ValueError: The shapes do not fit.
    """
    _check_targets(targets, logits)
    check_shape("agreement", agreement, (len(logits),))
    log_q = logits.log_softmax(dim=1)
    cross_entropy = F.cross_entropy(logits, targets, reduction="none")
    uniform = torch.full_like(log_q, 1 / logits.shape[1])
    divergence = F.kl_div(log_q, uniform, reduction="none").sum(dim=1)
    return (agreement * cross_entropy + (1 - agreement) * divergence).mean()


def pglr_loss(
    logits_global: Tensor,
    logits_part: Tensor,
    targets: Tensor,
    agreement: Tensor,
    *,
    beta: float = 0.5,
) -> Tensor:
    """Part-guided label refinement of the global branch (PPLR, eq. 6 to 8).

    Cross entropy of the global prediction with beta·onehot(y) + (1 - beta)·sum_n w_n q_n, where
    q_n = softmax(logits_part_n) and w = softmax over the parts of their agreements. The parts'
    ensemble is a target: no gradient flows into it.

    Args:
        logits_global: (B, C).
        logits_part: Of P parts, (B, C, P).
        targets: Clusters 0 to C - 1, (B,) int64, or distributions over them, (B, C).
        agreement: In [0, 1], (B, P).
        beta: Weight of the pseudo label, in [0, 1]; 1 is plain cross entropy.

    Returns:
        Mean over the batch, a scalar.

    Raises:
        ValueError: The shapes do not fit, or ``beta`` is out of range.
    """
    batch, classes = logits_global.shape
    _check_targets(targets, logits_global)
    check_shape("logits_part", logits_part, (batch, classes, logits_part.shape[-1]))
    check_shape("agreement", agreement, (batch, logits_part.shape[-1]))
    check_fraction("beta", beta, "PPLR uses 0.5")
    refined = refined_labels(logits_part, targets, agreement, beta=beta)
    return F.cross_entropy(logits_global, refined)


def refined_labels(
    logits_part: Tensor, targets: Tensor, agreement: Tensor, *, beta: float
) -> Tensor:
    """Return what `pglr_loss` trains the global branch on, of the same arguments, (B, C)."""
    weights = agreement.softmax(dim=1)  # (B, P)
    # Not a matrix product, which autocast would round.
    ensemble = (logits_part.softmax(dim=1) * weights[:, None]).sum(dim=2).detach()
    hard = targets if targets.ndim == 2 else F.one_hot(targets, logits_part.shape[1])
    return beta * hard + (1 - beta) * ensemble


def _check_targets(targets: Tensor, logits: Tensor) -> None:
    """Check that there is a class for each row of logits (B, C), or a distribution over them."""
    check_shape("targets", targets, tuple(logits.shape[: max(targets.ndim, 1)]))


def camera_contrastive_loss(
    embeddings: Tensor,
    targets: Tensor,
    cameras: Tensor,
    proxies: Tensor,
    proxy_targets: Tensor,
    proxy_cameras: Tensor,
    *,
    temperature: float = 0.07,
    hard_negatives: int = 50,
    own_camera: bool = False,
    weights: Tensor | None = None,
) -> Tensor:
    """Pull images to their cluster's proxies in other cameras, away from other clusters' proxies.

    The inter-camera loss of camera-aware PPLR. With S_ij the cosine of embedding i and proxy j over
    the temperature, P_i the proxies of i's cluster in other cameras and N_i the nearest proxies of
    other clusters,

        loss_i = log(sum_{j in P_i ∪ N_i} exp S_ij) - mean_{j in P_i} S_ij.

    Fewer than ``hard_negatives`` proxies of other clusters are all taken; the authors' code then
    fills up with positives.

    With ``own_camera`` it is the loss of Chen et al., "ICE: Inter-instance Contrastive Encoding",
    ICCV 2021, eq. 5, whose batch counts half of the mean of each of its cameras.

    Args:
        embeddings: Normalised here, (B, D).
        targets: Clusters, (B,).
        cameras: Cameras of the embeddings, (B,).
        proxies: L2-normalised mean of every (cluster, camera) pair, (M, D).
        proxy_targets: Clusters of the proxies, (M,).
        proxy_cameras: Cameras of the proxies, (M,).
        temperature: Divides the cosine, > 0.
        hard_negatives: Size of N_i, >= 1.
        own_camera: Have P_i be all proxies of i's cluster, that of its own camera among them.
        weights: Factor of each image's loss, (B,); None for 1.

    Returns:
        Sum over the batch divided by B, a scalar. An image whose cluster has no proxy in another
        camera adds 0 and is counted in B.

    Raises:
        ValueError: The shapes do not fit, or an option is out of range.
    """
    check_shape("targets", targets, (len(embeddings),))
    check_shape("cameras", cameras, (len(embeddings),))
    check_shape("proxy_targets", proxy_targets, (len(proxies),), "give one per proxy")
    check_shape("proxy_cameras", proxy_cameras, (len(proxies),), "give one per proxy")
    if temperature <= 0:
        raise ValueError(f"temperature must be above 0, got {temperature}; PPLR uses 0.07")
    check_count("hard_negatives", hard_negatives)
    if weights is not None:
        check_shape("weights", weights, (len(embeddings),))
    same = targets[:, None] == proxy_targets  # (B, M)
    positive = same if own_camera else same & (cameras[:, None] != proxy_cameras)
    counted = positive.any(dim=1)
    # Rows that are not counted keep finite numbers, and are left out at the end: picking rows by a
    # mask would make the host wait for the device, to know how many there are.
    scores = F.normalize(embeddings, dim=1) @ proxies.T / temperature  # (B, M)
    pulled = scores.masked_fill(~positive & counted[:, None], -torch.inf)
    pushed = scores.masked_fill(same, -torch.inf)
    pushed = pushed.topk(min(hard_negatives, len(proxies)), dim=1).values
    normalizer = torch.cat([pulled, pushed], dim=1).logsumexp(dim=1)
    count = positive.sum(dim=1).clamp(min=1)
    mean_positive = scores.masked_fill(~positive, 0).sum(dim=1) / count
    losses = (normalizer - mean_positive).masked_fill(~counted, 0)
    return (losses if weights is None else losses * weights).sum() / len(embeddings)
