from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
import torch

from pplr_lightning.gallery import Gallery
from pplr_lightning.gallery.faiss_index import kind_within

from ..tiny import embeddings, vectors

pytest.importorskip("faiss")
ROWS = vectors(60)
QUERIES = vectors(7, seed=1)


def paths(gallery, found):
    return [[gallery.sample(row).path for row in rows] for rows in found.rows.tolist()]


@pytest.mark.parametrize(
    ("limit", "kind"),
    [(4e6, "flat"), (4e6 - 1, "ivfsq"), (1e6, "ivfsq"), (1e6 - 1, "ivfpq"), (0, "ivfpq")],
)
def test_as_little_is_compressed_as_the_memory_allows(limit, kind):
    assert kind_within(limit, images=10_000, dimension=100) == kind


class TestCompressed:
    @pytest.fixture(scope="class", params=["ivfsq", "ivfpq"])
    def kind(self, request):
        return request.param

    @pytest.fixture(scope="class")
    def built(self, kind):
        source = embeddings(vectors(10_000))
        return source, Gallery.build(source, kind=kind, probes=400)

    def test_says_what_it_finds(self, built, kind):
        source, gallery = built
        assert gallery.kind == kind
        rows = torch.from_numpy(np.asarray(source.vectors))
        queries = rows[::50]
        exact = Gallery.build(source, kind="flat").search(queries, 11).rows
        found = gallery.search(queries, 11).rows
        hits = [
            len((set(a) & set(b)) - {50 * i}) / 10
            for i, (a, b) in enumerate(zip(exact.tolist(), found.tolist(), strict=True))
        ]
        assert gallery.recall == pytest.approx(np.mean(hits), abs=0.03)
        assert {"ivfpq": 0.5, "ivfsq": 0.95}[kind] < gallery.recall < 1

    def test_add_remove_save_and_load(self, built, kind, tmp_path):
        _, gallery = built
        gallery.save(tmp_path / "some.index")
        loaded = Gallery.load(tmp_path / "some.index")
        assert (loaded.kind, loaded.recall) == (kind, gallery.recall)
        new = vectors(5, seed=9)
        loaded.remove([f"a/{number}.jpg" for number in range(0, 10_000, 2)])
        loaded.add(embeddings(new, prefix="b"))
        assert len(loaded) == 5005
        nearest = loaded.search(new, 3)
        for number, rows in enumerate(paths(loaded, nearest)):
            assert f"b/{number}.jpg" in rows
            assert not any(int(path[2:-4]) % 2 == 0 for path in rows if path.startswith("a"))

    def test_reads_vectors_back_roughly(self, built, kind, tmp_path):
        source, gallery = built
        numbers = torch.tensor([9_999, 3, 500])
        rough = gallery.vectors(numbers)
        rows = torch.from_numpy(np.asarray(source.vectors))
        kept = torch.nn.functional.cosine_similarity(rough, rows[numbers]).min()
        assert kept > {"ivfpq": 0.8, "ivfsq": 0.999}[kind]
        before = (tmp_path / "before.index", tmp_path / "after.index")
        Gallery.build(source, kind=kind, probes=400).save(before[0])
        gallery.save(before[1])
        sizes = [(path / "index.faiss").stat().st_size for path in before]
        assert sizes[0] == sizes[1]  # where each vector lies is not written

    def test_reranks_and_leaves_out_cameras(self, built, tmp_path):
        source, gallery = built
        gallery.save(tmp_path / "some.index")
        loaded = Gallery.load(tmp_path / "some.index")
        loaded.remove(["a/5.jpg"])
        cameras = pa.array([number % 2 for number in range(9_999)], pa.int64())
        loaded.items = loaded.items.set_column(2, "camera_id", cameras)
        queries = torch.from_numpy(np.asarray(source.vectors))[:3]
        found = loaded.search(queries, 20, rerank=True, without_cameras=[1])
        assert (found.rows % 2 == 0).all()
        assert 0 in found.rows[0]
        assert found.distance.diff(dim=1).min() >= 0
        loaded.remove(["a/6.jpg"])  # after vectors were read back
        assert loaded.search(queries, 9_998).rows.max() == 9_997

    def test_cells_without_enough_images(self, built, kind):
        source, _ = built
        found = Gallery.build(source, kind=kind, probes=1).search(QUERIES, 500)
        assert (found.rows == -1).any()
        assert ((found.similarity == -1) == (found.rows == -1)).all()
        assert (found.rows[:, 0] >= 0).all()
