from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms import v2

from pplr_lightning.data import cache
from pplr_lightning.data.cache import Node, free_memory, new_cache, shared_pixels
from pplr_lightning.data.datasets import Sample

from ..processes import launch

RESIZE = v2.Resize((12, 8), v2.InterpolationMode.BICUBIC, antialias=True)


def make(images: int, **options):
    options = {"node": Node(), "must_fit": False} | options
    return new_cache([f"{i}.png" for i in range(images)], (12, 8), **options)


def test_images_are_found_again():
    kept = make(3)
    pixels = np.random.default_rng(0).integers(0, 256, (3, 30, 20, 3), dtype=np.uint8)
    images = [Image.fromarray(one) for one in pixels]
    for number in (2, 0, 1):
        kept.put(f"{number}.png", images[number])
    samples = [Sample("1.png", 0, 0), Sample("2.png", 0, 0)]
    taken = kept.take(samples, torch.device("cpu"))
    assert taken.dtype == torch.uint8
    for one, image in zip(taken, images[1:], strict=True):
        assert np.array_equal(one.numpy().transpose(1, 2, 0), np.asarray(RESIZE(image)))


@pytest.mark.parametrize(
    ("share", "must_fit", "made"), [(0.4, False, True), (0.6, False, False), (0.9, True, True)]
)
def test_auto_takes_half_of_the_memory_at_most(monkeypatch, share, must_fit, made):
    needed = 10 * 3 * 12 * 8
    monkeypatch.setattr(cache, "free_memory", lambda: int(needed / share))
    lines = []
    monkeypatch.setattr(cache, "rank_zero_info", lines.append)
    assert (make(10, must_fit=must_fit) is not None) == made
    assert len(lines) == 1
    assert lines[0].startswith("10 images" if made else "no cache, images are read from their")


def test_ram_names_what_it_needs(monkeypatch):
    monkeypatch.setattr(cache, "free_memory", lambda: 2**30)
    expected = (
        r"data.cache=ram: 4000000 images of 12 x 8 pixels take 1.1 GiB of memory, 1.0 GiB are "
        "free; use data.cache auto or none, or a smaller data.image_size"
    )
    with pytest.raises(ValueError, match=expected):
        make(4000000, must_fit=True)


def test_processes_of_a_machine_share_their_memory(tmp_path):
    """Four processes on two machines of two; each fills its half, and sees the other's."""

    def work(rank):
        node = Node(rank, rank % 2, 2)
        pixels = shared_pixels((2, 3), node)
        pixels[node.local_rank] = rank + 1
        torch.distributed.barrier()
        return pixels[:, 0].tolist()

    assert launch(work, 4, tmp_path) == [[1, 2], [1, 2], [3, 4], [3, 4]]


def refused(name):
    raise PermissionError(1, "Operation not permitted")


@pytest.mark.parametrize("memfd", [None, refused])
def test_processes_that_cannot_share(tmp_path, memfd):
    def work(rank):
        if memfd is None:
            del os.memfd_create
        else:
            os.memfd_create = memfd
        node = Node(rank, rank, 2)
        assert make(4, node=node) is None
        return make(4, node=node, must_fit=True)

    for text in launch(work, 2, tmp_path):
        assert "data.cache=ram: the processes of a machine cannot share memory; use" in text


class TestFreeMemory:
    def test_is_that_of_the_machine_at_most(self):
        total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        assert 2**20 < free_memory() <= total

    @pytest.mark.parametrize("version", [1, 2])
    def test_heeds_a_limit_of_a_group_above(self, tmp_path, monkeypatch, version):
        hierarchy, limit, use, reclaimable = cache._CONTROL_GROUPS[2 - version]
        job = tmp_path / "cgroup" / hierarchy / "job"
        (job / "step").mkdir(parents=True)
        own = "max" if version == 2 else str(2**62)
        for group, most in ((job, str(10 * 2**20)), (job / "step", own)):
            (group / limit).write_text(most + "\n")
            (group / use).write_text(f"{4 * 2**20}\n")
            (group / "memory.stat").write_text(f"anon 5\n{reclaimable} {2**20}\n")
        controllers = "memory" if version == 1 else ""
        (tmp_path / "cgroups").write_text(f"0:{controllers}:/job/step\n7:cpu:/elsewhere\n")
        (tmp_path / "meminfo").write_text("MemTotal: 1 kB\nMemAvailable: 999999 kB\n")
        monkeypatch.setattr(cache, "MEMINFO", tmp_path / "meminfo")
        monkeypatch.setattr(cache, "OWN_GROUPS", tmp_path / "cgroups")
        monkeypatch.setattr(cache, "GROUPS", tmp_path / "cgroup")
        assert free_memory() == 7 * 2**20

    def test_without_linux(self, monkeypatch):
        monkeypatch.setattr(cache, "MEMINFO", Path("/nowhere"))
        assert free_memory() == os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
