"""Every image once, decoded and resized, in memory."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import torch
from lightning.pytorch.utilities import rank_zero_info
from PIL import Image
from torch import Tensor

from pplr_lightning.data.datasets import Sample
from pplr_lightning.data.transforms import resized
from pplr_lightning.distributed import all_gather_list

GIB = 2**30
MEMINFO, OWN_GROUPS = Path("/proc/meminfo"), Path("/proc/self/cgroup")
GROUPS = Path("/sys/fs/cgroup")
# Version 2 and 1 of Linux' control groups: folder of the hierarchy, limit, use, what may be freed.
_CONTROL_GROUPS = (
    ("", "memory.max", "memory.current", "inactive_file"),
    ("memory", "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
)


class ImageCache:
    """The images of a data set as one uint8 tensor.

    Args:
        paths: Of the images, N different ones.
        pixels: Memory for them, (N, 3, H, W) uint8; `put` fills it.
    """

    def __init__(self, paths: Iterable[str], pixels: Tensor) -> None:
        self.pixels = pixels
        self._rows = {path: row for row, path in enumerate(paths)}
        # Of NumPy, because torch would start threads of its own in each thread that fills.
        self._array = pixels.numpy()

    def put(self, path: str, image: Image.Image) -> None:
        """Keeps a decoded image."""
        self._array[self._rows[path]] = resized(image, self._array.shape[2:])

    def take(self, samples: Sequence[Sample], device: torch.device) -> Tensor:
        """Gives these images on a device, (B, 3, H, W) uint8."""
        rows = torch.tensor([self._rows[sample.path] for sample in samples])
        pinned = device.type == "cuda"
        images = torch.empty(
            len(rows), *self.pixels.shape[1:], dtype=torch.uint8, pin_memory=pinned
        )
        torch.index_select(self.pixels, 0, rows, out=images)
        return images.to(device, non_blocking=True)


def send(tensor: Tensor, device: torch.device) -> Tensor:
    """Has a tensor copied to a device without waiting."""
    if device.type == "cuda":
        tensor = tensor.pin_memory()
    return tensor.to(device, non_blocking=True)


class Node(NamedTuple):
    """This process among those of its machine, which hold one cache together.

    Attributes:
        rank: Its number among all processes; those of a machine follow each other.
        local_rank: Its number on its machine.
        processes: Of its machine.
    """

    rank: int = 0
    local_rank: int = 0
    processes: int = 1


def new_cache(
    paths: Sequence[str], image_size: tuple[int, int], *, node: Node, must_fit: bool
) -> ImageCache | None:
    """Makes an empty cache, if there is memory for it; all ranks must call it.

    Args:
        paths: Of the images, N different ones.
        image_size: Height and width.
        node: The processes that share it.
        must_fit: Take any free memory, not half of it at most, and raise if that is too little.

    Returns:
        None on all ranks where it does not fit, or processes cannot share it; one line says so.

    Raises:
        ValueError: It must fit and does not.
    """
    shape = (len(paths), 3, *image_size)
    needed, free = math.prod(shape), min(all_gather_list([free_memory()]))
    text = f"{len(paths)} images of {image_size[0]} x {image_size[1]} pixels"
    sizes = f"{text} take {_size(needed)} of memory, {_size(free)} are free"
    reason = f"{sizes}, of which half may go into it" if needed > free / 2 else ""
    if must_fit:
        reason = sizes if needed > free else ""
    pixels = None if reason else shared_pixels(shape, node)
    if pixels is not None:
        rank_zero_info(f"{text} are kept decoded: {_size(needed)} of memory")
        return ImageCache(paths, pixels)
    reason = reason or "the processes of a machine cannot share memory"
    if must_fit:
        raise ValueError(
            f"data.cache=ram: {reason}; use data.cache auto or none, or a smaller data.image_size"
        )
    rank_zero_info(f"no cache, images are read from their files: {reason}")
    return None


def shared_pixels(shape: tuple[int, ...], node: Node) -> Tensor | None:
    """Makes a uint8 tensor that the processes of a machine share; all ranks must call it.

    It lies in memory without a name, so that it is gone with the last process, however that ends;
    nor does it need room in /dev/shm, of which containers have little.

    Returns:
        None on all ranks where some cannot share.
    """
    if node.processes == 1:
        return torch.empty(shape, dtype=torch.uint8)
    name = ""
    if node.local_rank == 0 and hasattr(os, "memfd_create"):
        with suppress(OSError):  # a sandbox may refuse it; the other ranks wait to hear of it
            file = os.memfd_create("pplr_lightning")
            name = f"/proc/{os.getpid()}/fd/{file}"
    name = all_gather_list([name])[node.rank - node.local_rank]
    size = math.prod(shape)
    pixels = None
    try:
        if name:
            flat = torch.from_file(name, shared=True, size=size, dtype=torch.uint8)
            pixels = flat.view(shape)
    except RuntimeError:
        pass  # another container than the first rank's
    shared = all(all_gather_list([pixels is not None]))
    if node.local_rank == 0 and name:
        os.close(file)  # the mappings keep it
    return pixels if shared else None


def free_memory() -> int:
    """Tells how many bytes this process could take: of the machine, or of its control group."""
    try:
        lines = MEMINFO.read_text().splitlines()
        groups = OWN_GROUPS.read_text().splitlines()
    except FileNotFoundError:  # no Linux: all there is
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    available = next(int(line.split()[1]) for line in lines if line.startswith("MemAvailable:"))
    free = [available * 2**10]
    for line in groups:
        _, controllers, own = line.split(":", 2)
        if controllers and "memory" not in controllers.split(","):
            continue
        hierarchy, *files = _CONTROL_GROUPS[bool(controllers)]
        top = GROUPS / hierarchy
        group = top / own.lstrip("/")
        levels = [level for level in (group, *group.parents) if level.is_relative_to(top)]
        free += [_free_in(level, *files) for level in levels]
    return max(0, min(free))


def _free_in(group: Path, limit: str, use: str, reclaimable: str) -> int:
    try:
        most = (group / limit).read_text().strip()
        used = int((group / use).read_text())
        stat = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())
    except OSError:  # the uppermost has none, and a container does not see its own path
        return 2**63
    return 2**63 if most == "max" else int(most) - used + int(stat.get(reclaimable, 0))


def _size(count: int) -> str:
    return f"{count / GIB:.1f} GiB" if count >= GIB else f"{count / 2**20:.1f} MiB"
