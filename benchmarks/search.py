"""Search over a large gallery: memory, build time, queries per second, recall.

    OMP_NUM_THREADS=1 python benchmarks/search.py --images 1000000 --dimensions 2048 --threads 1

Draws clustered vectors in chunks into a memory-mapped file (4 bytes a value: 8.2 GB at that size),
builds a gallery of each kind of them, saves and loads it, and searches with queries of
the same clusters that are not in the gallery. Recall@10 is the share of the 10 nearest of `flat`,
which is exact, that a compressed one finds.

Memory is the peak of each step's resident set, which is begun anew before the step; pages of the
two files that a step has read count, though the system may drop them. Read from /proc: Linux only.
Times are CPU seconds of the process, all threads together.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple, TypeVar

import numpy as np
import torch
from measuring import memory
from numpy.typing import NDArray

from pplr_lightning.data import Sample
from pplr_lightning.data.transforms import Preprocessing
from pplr_lightning.evaluation.fingerprint import Fingerprint
from pplr_lightning.gallery import Gallery
from pplr_lightning.gallery.embeddings import Embeddings, items_table

T = TypeVar("T")
CHUNK = 16_384  # vectors drawn at a time
PER_PERSON = 20  # images
NOISE = 1.0  # length of an image's own part against that of its person
TOP = 10


class Cost(NamedTuple):
    """CPU seconds, and the peak of the resident set in MiB."""

    seconds: float
    memory: float


def main(arguments: Sequence[str] | None = None) -> None:
    """Measures both kinds and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=1_000_000)
    parser.add_argument("--dimensions", type=int, default=2048)
    parser.add_argument("--queries", type=int, default=1000)
    parser.add_argument("--probes", type=int, default=64)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--folder", type=Path, help="where to write; a temporary one otherwise")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.threads)

    with tempfile.TemporaryDirectory(dir=options.folder) as name:
        folder = Path(name)
        draw = Drawing(options.images // PER_PERSON + 1, options.dimensions, options.seed)
        embeddings = embeddings_of(draw, options.images, folder / "vectors.npy")
        queries = torch.from_numpy(draw(options.queries, start=options.images))
        print(
            f"{options.images:,} vectors of {options.dimensions} dimensions "
            f"({4 * options.images * options.dimensions / 2**30:.2f} GiB), "
            f"{options.queries:,} queries, {options.threads} threads; {memory('VmRSS'):.0f} MiB "
            "held before\n"
        )
        print(
            "| | build, CPU s | peak, MiB | saved, MiB | queries/CPU s | peak, MiB | recall@10 |\n"
            "|---|---|---|---|---|---|---|"
        )
        exact = _measure("flat", embeddings, queries, folder, options.probes, None)
        for kind in ("ivfsq", "ivfpq"):
            _measure(kind, embeddings, queries, folder, options.probes, exact)


class Drawing:
    """Draws L2-normalised vectors around one centre per person, a chunk at a time."""

    def __init__(self, persons: int, dimensions: int, seed: int) -> None:
        self.persons, self.dimensions, self.seed = persons, dimensions, seed

    def __call__(self, count: int, *, start: int) -> NDArray[np.float32]:
        """Draws the vectors of images `start` to `start` + `count` - 1, (count, D)."""
        rng = np.random.default_rng((self.seed, start))
        vectors = NOISE * rng.standard_normal((count, self.dimensions), dtype=np.float32)
        for row in range(count):  # centres are drawn anew each time: all would need memory, too
            person = (start + row) % self.persons
            centre = np.random.default_rng((self.seed, 1, person))
            vectors[row] += centre.standard_normal(self.dimensions, dtype=np.float32)
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        return vectors


def embeddings_of(draw: Drawing, images: int, path: Path) -> Embeddings:
    """Draws a gallery into a memory-mapped file."""
    shape = (images, draw.dimensions)
    vectors = np.lib.format.open_memmap(path, mode="w+", dtype=np.float32, shape=shape)
    for start in range(0, images, CHUNK):
        vectors[start : start + CHUNK] = draw(min(CHUNK, images - start), start=start)
    vectors.flush()
    items = items_table([Sample(f"{number:08d}.jpg", -1, -1) for number in range(images)])
    fingerprint = Fingerprint("drawn", "global", Preprocessing((384, 128)))
    return Embeddings(np.load(path, mmap_mode="r"), items, fingerprint)


def _measure(
    kind: str,
    embeddings: Embeddings,
    queries: torch.Tensor,
    folder: Path,
    probes: int,
    exact: torch.Tensor | None,
) -> torch.Tensor:
    """Measures one kind, prints its row and returns what it found, (Q, 10)."""
    saved = folder / kind

    def build() -> None:
        Gallery.build(embeddings, kind=kind, probes=probes).save(saved)

    _, built = _cost(build)
    gallery = Gallery.load(saved)
    found, searched = _cost(lambda: gallery.search(queries, TOP).rows)
    size = (saved / "index.faiss").stat().st_size / 2**20
    recall = 1.0 if exact is None else recall_of(found, exact)
    print(
        f"| {kind} | {built.seconds:.1f} | {built.memory:.0f} | {size:.0f} | "
        f"{len(queries) / searched.seconds:.1f} | {searched.memory:.0f} | {recall:.3f} |",
        flush=True,
    )
    return found


def recall_of(found: torch.Tensor, exact: torch.Tensor) -> float:
    """The share of the exact rows (Q, k) that were found."""
    hits = (found[:, :, None] == exact[:, None, :]).any(dim=1)
    return float(hits.float().mean())


def _cost(work: Callable[[], T]) -> tuple[T, Cost]:
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew
    start = time.process_time()
    result = work()
    return result, Cost(time.process_time() - start, memory("VmHWM"))


if __name__ == "__main__":
    main()
