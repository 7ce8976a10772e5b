"""Copies of a network that follow it slowly, and teach it."""

from __future__ import annotations

import copy
from typing import TypeVar

import torch
from torch import Tensor, nn

from pplr_lightning.functional.checks import check_fraction

M = TypeVar("M", bound=nn.Module)


def averaged_copy(student: M) -> M:
    """Makes a mean teacher (Tarvainen & Valpola, NeurIPS 2017): a copy that no gradient trains.

    What it has are parameters, so that it is in checkpoints, and DDP, which reduces gradients and
    broadcasts buffers, sends none of it in a step but the statistics of its norms.

    Args:
        student: Any module, such as a network or a classifier.

    Example:
        >>> student = nn.Linear(2, 1)
        >>> teacher = averaged_copy(student)
        >>> [parameter.requires_grad for parameter in teacher.parameters()]
        [False, False]
    """
    return copy.deepcopy(student).requires_grad_(False)


@torch.no_grad()
def follow(teacher: nn.Module, student: nn.Module, *, momentum: float) -> None:
    """Moves a teacher's parameters towards its student's.

        theta' <- a theta' + (1 - a) theta

    Call it after the student's step, on every rank: of equal parameters it makes equal ones. It
    leaves buffers alone: norms of a teacher in training mode normalise by its batches, and keep
    running statistics of these (Ge et al., ICLR 2020, and Chen et al., ICCV 2021).

    Args:
        teacher: A copy of the student.
        student: Learns.
        momentum: a, the share of the old teacher, in [0, 1]; 0 copies the student.

    Raises:
        ValueError: `momentum` is out of range, or the two are not alike.

    Example:
        >>> student, teacher = nn.PReLU(init=1.0), averaged_copy(nn.PReLU(init=0.0))
        >>> follow(teacher, student, momentum=0.75)
        >>> teacher.weight.item()
        0.25
    """
    check_fraction("momentum", momentum, "it is the share of the old teacher")
    old: list[Tensor] = list(teacher.parameters())
    new: list[Tensor] = list(student.parameters())
    if [one.shape for one in old] != [one.shape for one in new]:
        raise ValueError("teacher and student have other parameters: make it by averaged_copy")
    torch._foreach_lerp_(old, new, 1 - momentum)


def warm_momentum(step: int, limit: float) -> float:
    """Returns min(1 - 1 / (step + 1), limit): a plain mean of all students until the limit.

    Args:
        step: Optimiser steps before this one, 0 or more.
        limit: The momentum in the end, in [0, 1].

    Example:
        >>> [warm_momentum(step, 0.9) for step in (0, 1, 4, 99)]
        [0.0, 0.5, 0.8, 0.9]
    """
    return min(1 - 1 / (step + 1), limit)
