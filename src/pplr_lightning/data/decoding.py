"""Every image is decoded once as a run starts: bad ones are named, good ones fill the cache."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Literal

from lightning.pytorch.utilities import rank_zero_warn

from pplr_lightning.data.cache import ImageCache, Node
from pplr_lightning.data.datasets import Splits
from pplr_lightning.data.images import BadImageError, read_image
from pplr_lightning.distributed import all_gather_list, raised_on_all

BadImages = Literal["raise", "skip"]


def decode_all(
    paths: Sequence[str], cache: ImageCache | None, *, node: Node, world_size: int
) -> dict[str, str]:
    """Decodes every image once, each rank its share; all ranks must call it.

    Into the cache, if there is one, each rank puts its share of what its machine holds; it is full
    when this returns.

    Args:
        paths: Of the images, N different ones.
        cache: To be filled.
        node: This process among those of its machine.
        world_size: The number of processes.

    Returns:
        By its path, what is wrong with each image that cannot be decoded; on all ranks the same.

    Raises:
        OSError: A file cannot be opened or read, on any rank; all raise it, or what else one does.
    """
    share = paths[node.rank :: world_size]
    if cache is not None:
        share = paths[node.local_rank :: node.processes]

    def decode(path: str) -> tuple[str, str] | None:
        try:
            image = read_image(path)
        except BadImageError as error:
            return path, str(error)
        if cache is not None:
            cache.put(path, image)
        return None

    # Decoding releases the interpreter lock.
    with raised_on_all(), ThreadPoolExecutor() as pool:
        bad = [found for found in pool.map(decode, share) if found is not None]
    return dict(sorted(all_gather_list(bad)))


def without_bad_images(splits: Splits, bad: dict[str, str], bad_images: BadImages) -> Splits:
    """Leaves bad images out, with a warning, where that is wanted.

    Args:
        splits: All images.
        bad: By its path, what is wrong with each bad one.
        bad_images: Whether one stops the run (`raise`) or is left out (`skip`).

    Raises:
        ValueError: There are some, and they are to stop the run.
    """
    if not bad:
        return splits
    if bad_images == "raise":
        more = f" ({len(bad) - 1} more like it)" if len(bad) > 1 else ""
        raise ValueError(
            f"{next(iter(bad.values()))}{more}; replace or remove the file, or set bad_images to "
            "skip (a training's data.bad_images)"
        )
    rank_zero_warn(f"{len(bad)} unreadable images are left out: " + "; ".join(bad.values()))
    return Splits(*([s for s in split if s.path not in bad] for split in splits))
