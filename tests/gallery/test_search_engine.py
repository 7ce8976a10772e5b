from __future__ import annotations

import pytest
import torch
from PIL import Image

from pplr_lightning.data import Sample
from pplr_lightning.gallery import Embeddings, Gallery, SearchEngine
from pplr_lightning.gallery.embeddings import items_table

from ..tiny import module, save

pytest.importorskip("faiss")
NAMES = ["global", "part 1", "part 2"]


@pytest.fixture(scope="module")
def model():
    return module()


@pytest.fixture
def images(drawn, tmp_path):
    """Copies of 30 images, as files that a test may remove."""
    made = []
    for number, path in enumerate(sorted((drawn / "bounding_box_test").glob("0*.png"))[:30]):
        made.append(tmp_path / f"{number}.png")
        Image.open(path).save(made[-1])
    return made


@pytest.fixture(params=["global", "parts", "both"])
def engine(request, images, model):
    return build(images, model, request.param)


def build(images, model, kind) -> SearchEngine:
    samples = [Sample(str(path), -1, number % 3 - 1) for number, path in enumerate(images)]
    rows = model.embed(images, kind=kind).numpy()
    return SearchEngine(
        Gallery.build(Embeddings(rows, items_table(samples), model.fingerprint(kind=kind))), model
    )


@torch.no_grad()
def cosines(model, one, other) -> list[float]:
    """Of each branch of two images."""
    (whole, parts), (whole2, parts2) = (
        model.branches(
            torch.stack([model.preprocessing.transform()(Image.open(path).convert("RGB"))])
        )
        for path in (one, other)
    )
    return [float(whole[0] @ whole2[0]), *(parts[0] * parts2[0]).sum(dim=0).tolist()]


def test_finds_the_image_itself(engine, images, model):
    query = engine.embed(images[4])
    vector = model.embed(images[4], kind=engine.gallery.fingerprint.features)[0]
    assert torch.allclose(query.vector, vector, atol=1e-6)
    hits = engine.search(query, 3)
    assert hits[0].row == 4
    assert hits[0].sample == Sample(str(images[4]), -1, 0)
    assert hits[0].similarity == pytest.approx(1, abs=1e-5)
    assert hits[0].distance is None
    assert engine.cameras == [0, 1]


def test_options_reach_the_gallery(engine, images):
    query = engine.embed(images[4])
    hits = engine.search(query, 30, rerank=True, candidates=12, without_cameras=[0])
    assert len(hits) == 20
    assert all(hit.sample.camera_id != 0 for hit in hits)
    assert [hit.distance for hit in hits] == sorted(hit.distance for hit in hits)
    assert hits[0].distance < 1
    if engine.weighted:
        weights = [0.0] * (len(engine.weighted) - 1) + [1.0]
        (hit, *_) = engine.search(query, 30, weights=weights, without_cameras=[0])
        last = cosines(engine.module, images[4], images[hit.row])[-1]
        assert hit.similarity == pytest.approx(last, abs=1e-5)


class TestExplains:
    @pytest.fixture(autouse=True)
    def _eval(self, model):
        model.eval()

    def test_every_branch(self, engine, images, model):
        explained = engine.explain(engine.embed(images[4]), 7)
        assert list(explained.similarity) == NAMES
        expected = cosines(model, images[4], images[7])
        assert list(explained.similarity.values()) == pytest.approx(expected, abs=1e-5)
        file = engine.gallery.fingerprint.features != "both"
        assert explained.source == (
            "the image's file as it is now" if file else "the gallery's vector"
        )

    def test_a_file_that_is_gone(self, engine, images, model):
        query, expected = engine.embed(images[4]), cosines(model, images[4], images[7])
        images[7].unlink()
        explained = engine.explain(query, 7)
        held = {"global": NAMES[:1], "parts": NAMES[1:], "both": NAMES}
        names = held[engine.gallery.fingerprint.features]
        assert explained.similarity == pytest.approx(
            {name: expected[NAMES.index(name)] for name in names}, abs=1e-5
        )
        assert "the gallery's vector" in explained.source

    def test_of_a_compressed_index(self, images, model, monkeypatch):
        engine = build(images, model, "both")
        monkeypatch.setattr(engine.gallery, "kind", "ivfpq")  # whose vectors are approximate
        query = engine.embed(images[4])
        assert engine.explain(query, 7).source == "the image's file as it is now"
        images[7].unlink()
        assert "compressed and so approximate" in engine.explain(query, 7).source


class TestBadInput:
    def test_of_another_model(self, images, model):
        gallery = build(images, model, "both").gallery
        with pytest.raises(ValueError, match=r"another model .* than those of x.ckpt"):
            SearchEngine(gallery, module(seed=1), name="x.ckpt")

    def test_empty(self, images, model, tmp_path, tiny_checkpoint):
        gallery = build(images, model, "both").gallery
        gallery.remove([str(path) for path in images])
        with pytest.raises(ValueError, match="the gallery is empty"):
            SearchEngine(gallery, model)
        gallery.save(tmp_path / "empty.index")
        with pytest.raises(ValueError, match=r"empty.index: the gallery is empty: add images"):
            SearchEngine.load(tmp_path / "empty.index", tiny_checkpoint)

    def test_another_number_of_weights(self, images, model):
        engine = build(images, model, "both")
        with pytest.raises(ValueError, match=r"2 weights .* give 3, of global, part 1, part 2"):
            engine.search(engine.embed(images[0]), weights=[1, 2])

    def test_no_image(self, images, model):
        with pytest.raises(ValueError, match=r"setup.cfg: cannot be read as an image"):
            build(images, model, "both").embed("setup.cfg")


def test_loads_from_disk(images, model, tmp_path, tiny_checkpoint):
    build(images, model, "both").gallery.save(tmp_path / "some.index")
    engine = SearchEngine.load(tmp_path / "some.index", save(model, tmp_path / "own.ckpt"))
    assert engine.weighted == engine.branches == NAMES
    assert engine.search(engine.embed(images[2]), 1)[0].row == 2
