"""What the functions check of their input: where it does not fit, a ValueError says what to do."""

from __future__ import annotations

import math
from collections.abc import Sequence
from numbers import Integral
from typing import Any

import torch
from torch import Tensor

LARGEST_SIDE = 2048  # of an image that a network is given, in pixels
MOST_WORKERS = 256  # loader processes of a process
MOST_CLASSES = 1_000_000  # rows of a classifier, used or not
MOST_FEATURES = 65_536  # of a layer that an option sizes
MOST = 2**32 - 1  # of any count: a seed may be that


def check_features(features: Tensor, name: str = "features") -> None:
    """Check that features are (N, D), finite and L2-normalised to 1e-3."""
    norms = check_finite(features, name)
    far = ((norms - 1).abs() > 1e-3).nonzero()
    if len(far):
        norm = float(norms[far[0]])
        fix = f"call torch.nn.functional.normalize({name}) first"
        if norm == 0:
            fix = "a network that gives nothing has diverged, or was given nothing to see"
        elif abs(norm - 1) < 0.02:  # they are, in 16 bits
            fix = f"normalise in 32 bits, torch.nn.functional.normalize({name}.float())"
        raise ValueError(
            f"{name} must be L2-normalised, got a norm of {norm:.4g} in row {int(far[0])}; {fix}"
        )


def check_finite(features: Tensor, name: str = "features") -> Tensor:
    """Check that features are (N, D) and finite, and return their norms, (N,)."""
    if features.ndim != 2:
        raise ValueError(
            f"{name} must be 2-D, (N, D), got shape {tuple(features.shape)}; give one row per image"
        )
    norms = torch.linalg.vector_norm(features.detach().float(), dim=1)
    broken = (~norms.isfinite()).nonzero()
    if len(broken):
        raise ValueError(
            f"{name} must be finite, got NaN or Inf in {len(broken)} of {len(norms)} rows, first "
            f"in row {int(broken[0])}; check the model's weights and the images"
        )
    return norms


def check_labels(name: str, labels: Tensor, images: int, classes: int, *, lowest: int = 0) -> None:
    """Check that there is one label per image and, on the CPU, that none is out of range.

    Reading labels on a GPU would wait for it.

    Args:
        name: What the message calls the labels.
        labels: ``lowest`` to ``classes`` - 1, (N,).
        images: N.
        classes: Number of classes.
        lowest: 0, or -1 where that stands for no class.
    """
    check_shape(name, labels, (images,))
    if labels.device.type != "cpu" or not images:
        return
    low, high = labels.aminmax()
    if low < lowest or high >= classes:
        raise ValueError(
            f"{name} must be {lowest} to {classes - 1}, got {int(low)} to {int(high)}; give one "
            "row to every class, and leave out images without a class"
        )


def check_count(
    name: str,
    value: int,
    images: int | None = None,
    *,
    least: int = 1,
    most: int = MOST,
) -> None:
    """Check that a whole number is at least `least`, at most `most`, and `images` if given."""
    if not isinstance(value, Integral):
        raise ValueError(f"{name} must be a whole number, got {value!r}")
    if value < least:
        raise ValueError(f"{name} must be at least {least}, got {value}; raise {name}")
    if value > most:
        raise ValueError(f"{name} must be at most {most:,}, got {value}; lower {name}")
    if images is not None and value > images:
        raise ValueError(
            f"{name} must not exceed the number of images, got {name}={value} for {images} "
            f"images; lower {name} or add images"
        )


def check_counts(
    owner: str,
    images: int | None = None,
    /,
    *,
    least: int = 1,
    most: int = MOST,
    **counts: int,
) -> None:
    """Check options by name, which the message calls those of `owner`, as `check_count` does."""
    for name, value in counts.items():
        check_count(f"{owner}.{name}", value, images, least=least, most=most)


def check_image_size(name: str, size: Sequence[int]) -> None:
    """Check that height and width lie in 1 to `LARGEST_SIDE` pixels."""
    if not all(1 <= side <= LARGEST_SIDE for side in size):
        raise ValueError(
            f"{name}={tuple(size)}: give (height, width) in pixels, 1 to {LARGEST_SIDE:,} each"
        )


def check_neighbors(neighbors: Tensor, images: int, columns: int) -> None:
    """Check a search result that was handed over: (N, >= columns) indices of images."""
    if neighbors.ndim != 2 or len(neighbors) != images or neighbors.shape[1] < columns:
        raise ValueError(
            f"neighbors must be ({images}, {columns} or more), got shape "
            f"{tuple(neighbors.shape)}; search the same features with k={columns} or more"
        )
    if neighbors.is_floating_point() or neighbors.is_complex() or neighbors.dtype == torch.bool:
        raise ValueError(
            f"neighbors must hold whole numbers, got {neighbors.dtype}; pass the result of "
            "nearest_neighbors"
        )
    low, high = neighbors.aminmax()
    if low < 0 or high >= images:
        raise ValueError(
            f"neighbors must hold indices 0 to {images - 1}, got {int(low)} to {int(high)}; "
            "pass the result of nearest_neighbors on the same features"
        )


def check_fraction(name: str, value: float, hint: str) -> None:
    """Check that 0 <= value <= 1; the hint ends the message."""
    if not 0 <= value <= 1:
        raise ValueError(f"{name} must be in [0, 1], got {value}; {hint}")


def check_positive(**values: float) -> None:
    """Check, by name, that values are finite and above 0."""
    for name, value in values.items():
        if not 0 < value < math.inf:
            raise ValueError(f"{name}={value}: must be finite and above 0")


def check_below_one(**values: float) -> None:
    """Check, by name, that values are in [0, 1)."""
    for name, value in values.items():
        if not 0 <= value < 1:
            raise ValueError(f"{name}={value}: must lie in [0, 1)")


def check_shape(
    name: str, tensor: Tensor, expected: tuple[int, ...], hint: str = "give one per image"
) -> None:
    """Check the shape of a tensor; the hint ends the message."""
    if tuple(tensor.shape) != expected:
        raise ValueError(f"{name} must have shape {expected}, got {tuple(tensor.shape)}; {hint}")


def check_square(distance: Any) -> None:
    """Check that a matrix of distances is (N, N)."""
    if distance.ndim != 2 or distance.shape[0] != distance.shape[1]:
        raise ValueError(
            f"distance must be square, (N, N), got shape {tuple(distance.shape)}; pass the result "
            "of jaccard_distance"
        )


def check_cameras(
    cameras: Tensor, images: int, name: str = "cameras", otherwise: str = "use jaccard_distance"
) -> None:
    """Check that the camera of every image is known, and that there are two or more.

    Args:
        cameras: Camera of each image, -1 if it is not known, (N,).
        images: N.
        name: What the message calls the cameras.
        otherwise: What the message says to do without cameras.
    """
    check_shape(name, cameras, (images,))
    unknown = (cameras < 0).nonzero()
    if len(unknown):
        raise ValueError(
            f"{name} must be known, 0 or above, got {int(cameras[unknown[0]])} for {len(unknown)} "
            f"of {images} images, first image {int(unknown[0])}; give every image its camera, or "
            f"{otherwise}"
        )
    if len(cameras.unique()) < 2:
        raise ValueError(
            f"{name} must be two or more, got {cameras.unique().tolist()} for all {images} images; "
            f"{otherwise}"
        )
