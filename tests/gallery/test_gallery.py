from __future__ import annotations

import sys
from dataclasses import replace

import pyarrow as pa
import pytest
import torch

from pplr_lightning.data import Sample
from pplr_lightning.functional import engines, rerank_distance
from pplr_lightning.gallery import Gallery
from pplr_lightning.gallery import embeddings as files

from ..tiny import FINGERPRINT, embeddings, vectors

pytest.importorskip("faiss")
ROWS = vectors(60)
QUERIES = vectors(7, seed=1)


@pytest.fixture(autouse=True)
def _small_chunks(monkeypatch):
    monkeypatch.setattr(files, "GROUP_BYTES", 16 * 4 * 16)  # 16 vectors


@pytest.fixture
def gallery():
    return Gallery.build(embeddings(ROWS))


@pytest.fixture(params=["in memory", "on disk"])
def either(request, gallery, tmp_path):
    """The gallery as built, or saved and loaded."""
    if request.param == "in memory":
        return gallery
    gallery.save(tmp_path / "some.index")
    return Gallery.load(tmp_path / "some.index")


def paths(gallery, found):
    return [[gallery.sample(row).path for row in rows] for rows in found.rows.tolist()]


def expected(rows, names, k):
    order = (QUERIES @ rows.T).argsort(dim=1, descending=True)[:, :k]
    return [[names[i] for i in line] for line in order.tolist()]


NAMES = [f"a/{number}.jpg" for number in range(60)]


class TestSearch:
    def test_finds_the_most_similar(self, either):
        found = either.search(QUERIES, 5)
        assert paths(either, found) == expected(ROWS, NAMES, 5)
        similarity = (QUERIES @ ROWS.T).topk(5).values
        assert torch.allclose(found.similarity, similarity, atol=1e-6)

    def test_gives_all_of_fewer(self, either):
        assert either.search(QUERIES, 100).rows.shape == (7, 60)

    def test_samples(self, gallery):
        assert gallery.sample(3) == Sample("a/3.jpg", 3, -1)

    @pytest.mark.parametrize(
        ("queries", "k", "message"),
        [
            (QUERIES, 0, "k must be at least 1, got 0"),
            (QUERIES[:, :8], 5, "must be L2-normalised"),
            (torch.eye(8), 5, "vectors of 8 dimensions, but the gallery's have 16"),
            (QUERIES[0], 5, "must be 2-D"),
        ],
    )
    def test_bad_queries(self, gallery, queries, k, message):
        with pytest.raises(ValueError, match=message):
            gallery.search(queries, k)


class TestOptions:
    @pytest.fixture
    def both(self, either):
        """The same, of vectors of two branches of 8 dimensions, in cameras 0, 1 and unknown."""
        either.fingerprint = replace(FINGERPRINT, features="both")
        cameras = [[0, 1, None][number % 3] for number in range(60)]
        items = either.items
        either.items = items.set_column(2, "camera_id", pa.array(cameras, pa.int64()))
        return either

    def test_weights(self, both):
        found = both.search(QUERIES, 60, weights=[3, 1])
        products = (QUERIES[:, None] * ROWS).view(7, 60, 2, 8).sum(dim=3) * 2
        expected = (products * torch.tensor([0.75, 0.25])).sum(dim=2)
        assert torch.allclose(found.similarity, expected.gather(1, found.rows), atol=1e-5)
        assert found.similarity.diff(dim=1).max() <= 1e-6
        assert found.distance is None
        plain, same = both.search(QUERIES, 60), both.search(QUERIES, 60, weights=[5, 5])
        assert torch.allclose(plain.similarity, same.similarity, atol=1e-6)
        assert not torch.equal(plain.rows, found.rows)

    def test_reranks_all_as_rerank_distance(self, both):
        found = both.search(QUERIES, 60, rerank=True)
        for query, rows, distance in zip(QUERIES, found.rows, found.distance, strict=True):
            expected = rerank_distance(query[None], ROWS)[0]
            assert torch.allclose(distance, expected[rows], atol=1e-5)
            assert distance.diff().min() >= 0
        similarity = (QUERIES @ ROWS.T).gather(1, found.rows)
        assert torch.allclose(found.similarity, similarity, atol=1e-5)

    def test_reranks_the_candidates_alone(self, both):
        first = both.search(QUERIES, 10).rows
        found = both.search(QUERIES, 4, rerank=True, candidates=10)
        assert found.rows.shape == found.similarity.shape == found.distance.shape == (7, 4)
        for candidates, rows in zip(first.tolist(), found.rows.tolist(), strict=True):
            assert set(rows) < set(candidates)
        assert both.search(QUERIES, 20, rerank=True, candidates=10).rows.shape == (7, 20)

    def test_leaves_out_cameras(self, both):
        found = both.search(QUERIES, 60, without_cameras=[0])
        assert found.rows.shape == (7, 40)
        assert (found.rows % 3 != 0).all()
        plain = both.search(QUERIES, 60).rows
        assert plain[plain % 3 != 0].tolist() == found.rows.flatten().tolist()
        reranked = both.search(QUERIES, 60, without_cameras=[0, 1], rerank=True)
        assert (reranked.rows % 3 == 2).all()

    def test_cameras_that_are_not_there(self, both):
        message = r"s=\[1, 7\]: the gallery has no image of \[7\], but of cameras \[0, 1\]"
        with pytest.raises(ValueError, match=message):
            both.search(QUERIES, without_cameras=[7, 1])
        nameless = Gallery.build(embeddings(ROWS))
        with pytest.raises(ValueError, match=r"without_cameras=\[-1\]: .* have no camera ids"):
            nameless.search(QUERIES, without_cameras=[-1])

    def test_after_a_removal(self, both):
        both.remove(["a/0.jpg", "a/7.jpg"])
        kept = [number for number in range(60) if number not in (0, 7)]
        assert torch.allclose(both.vectors(torch.arange(58)), ROWS[kept])
        found = both.search(QUERIES, 58, without_cameras=[1], rerank=True)
        assert all(both.sample(row).camera_id != 1 for row in found.rows.flatten().tolist())

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"weights": [1, 1, 1]}, "3 weights .* do not fit vectors of 16 dimensions"),
            ({"candidates": 0}, "candidates must be at least 1, got 0"),
        ],
    )
    def test_bad_options(self, both, options, message):
        with pytest.raises(ValueError, match=message):
            both.search(QUERIES, rerank=True, **options)

    def test_no_image_left(self, both):
        both.remove([path for number, path in enumerate(NAMES) if number % 3 == 2])
        with pytest.raises(ValueError, match=r"without_cameras=\[0, 1\]: leaves no image"):
            both.search(QUERIES, without_cameras=[1, 0])


class TestChange:
    def test_add_and_remove(self, either, tmp_path):
        new = vectors(20, seed=2)
        either.remove(["a/3.jpg", "a/59.jpg"])
        either.add(embeddings(new, prefix="b"))
        either.remove(["b/0.jpg"])
        either.add(embeddings(ROWS[3:4], prefix="c"))
        assert len(either) == 78
        kept = [number for number in range(59) if number != 3]
        rows = torch.cat([ROWS[kept], new[1:], ROWS[3:4]])
        names = [NAMES[n] for n in kept] + [f"b/{n}.jpg" for n in range(1, 20)] + ["c/0.jpg"]
        assert paths(either, either.search(QUERIES, 10)) == expected(rows, names, 10)
        either.save(tmp_path / "changed.index")
        again = Gallery.load(tmp_path / "changed.index")
        assert paths(again, again.search(QUERIES, 10)) == expected(rows, names, 10)

    def test_an_image_that_is_there(self, gallery):
        with pytest.raises(ValueError, match=r"already: a/0.jpg \(1 more like it\); remove it"):
            gallery.add(embeddings(ROWS[:2]))
        assert len(gallery) == 60

    def test_an_image_that_is_not(self, either):
        with pytest.raises(ValueError, match=r"not in the gallery: a/99.jpg \(1 more like it\)"):
            either.remove(["a/1.jpg", "a/99.jpg", "x"])
        assert len(either) == 60

    def test_of_another_model(self, gallery):
        other = embeddings(
            ROWS[:2], prefix="b", fingerprint=replace(FINGERPRINT, weights="fedcba9876543210")
        )
        with pytest.raises(ValueError, match=r"another model \(weights 0123456789ab, here fedcba"):
            gallery.add(other)

    def test_an_error_while_adding_adds_nothing(self, either):
        new = vectors(20, seed=2)
        new[18] *= 2  # in the second chunk
        with pytest.raises(ValueError, match="must be L2-normalised"):
            either.add(embeddings(new, prefix="b"))
        assert len(either) == 60
        assert paths(either, either.search(QUERIES, 60)) == expected(ROWS, NAMES, 60)

    def test_an_empty_gallery(self, gallery, tmp_path):
        gallery.remove(NAMES)
        gallery.save(tmp_path / "some.index")
        loaded = Gallery.load(tmp_path / "some.index")
        with pytest.raises(ValueError, match="the gallery is empty: add images"):
            loaded.search(QUERIES)
        loaded.add(embeddings(ROWS))
        assert paths(loaded, loaded.search(QUERIES, 5)) == expected(ROWS, NAMES, 5)


class TestBuild:
    def test_no_image(self):
        with pytest.raises(ValueError, match="no image to build a gallery of"):
            Gallery.build(embeddings(ROWS[:0]))

    def test_an_image_twice(self):
        twice = embeddings(ROWS)
        items = twice.items.set_column(0, "path", [["a/1.jpg"] * 60])
        with pytest.raises(ValueError, match=r"there twice: a/1.jpg"):
            Gallery.build(twice._replace(items=items))

    def test_too_few_to_compress(self):
        with pytest.raises(ValueError, match="from 9,984 images or more, got 60: use 'flat'"):
            Gallery.build(embeddings(ROWS), kind="ivfpq")

    def test_without_faiss(self, monkeypatch):
        monkeypatch.setitem(sys.modules, "faiss", None)
        assert engines.import_faiss() is None
        with pytest.raises(ImportError, match=r"needs FAISS, .*: pip install pplr-lightning\[cpu"):
            Gallery.build(embeddings(ROWS))


@pytest.mark.parametrize("limit", [0, -1, float("nan")])
def test_a_limit_of_memory_that_is_none(limit):
    with pytest.raises(ValueError, match=r"memory_limit=.*: must be above 0 GiB"):
        Gallery.build(embeddings(vectors(4)), memory_limit=limit)


def test_a_name_that_no_gallery_holds():
    with pytest.raises(ValueError, match=r"not in the gallery: '.udcff.png'"):
        Gallery.build(embeddings(vectors(4))).remove(["\udcff.png"])
