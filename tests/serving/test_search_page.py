from __future__ import annotations

from threading import Thread, get_ident
from types import SimpleNamespace

import pytest
from PIL import Image

from pplr_lightning.gallery import Gallery, SearchEngine

gradio = pytest.importorskip("gradio")
from pplr_lightning.serving import search_page, uploads  # noqa: E402
from pplr_lightning.serving.search_page import Answers, build_page  # noqa: E402
from pplr_lightning.serving.uploads import read_upload as read  # noqa: E402

from ..tiny import module  # noqa: E402


@pytest.fixture(scope="module")
def answers(made):
    return Answers(SearchEngine.load(made.index, made.checkpoint), made.index.parent)


@pytest.fixture
def asked(answers, made):
    upload = {"path": str(made.images[4]), "orig_name": "4.png"}
    asked, hits, why, found = answers.ask(upload, 7, False, 200, [], 1, 1, 1)
    assert (hits, why, found) == answers.show(asked, 7, False, 200, [], 1, 1, 1)
    return asked


def test_answers_an_image(answers, asked):
    hits, why, found = answers.show(asked, 7, False, 200, None, 1, 1, 1)
    assert hits.count("<li>") == len(found) == 7
    assert found[0].row == 4
    assert "7 of 30 images, most similar first" in hits
    assert "Why rank 1?" in why
    assert "their mean, by the weights" in why


def test_options_count(answers, asked):
    _, _, found = answers.show(asked, 30, True, 20, [1, 2], 0, 1, 0)
    assert len(found) == 10
    assert {hit.sample.camera_id for hit in found} == {0}
    distances = [hit.distance for hit in found]
    assert distances == sorted(distances)
    best = max(found, key=lambda hit: hit.similarity)
    explained = answers.engine.explain(asked.query, best.row)
    assert best.similarity == pytest.approx(explained.similarity["part 1"], abs=1e-5)


def test_explains_the_chosen(answers, asked):
    found = answers.show(asked, 7, False, 200, None, 1, 1, 1)[2]
    why = answers.explain(asked, found, SimpleNamespace(_data={"place": 2}))
    assert "Why rank 3?" in why
    assert found[2].sample.path.rsplit("/", 1)[-1] in why


@pytest.mark.parametrize(
    "data", [*({"place": place} for place in (7, -1, None, "0", 1.0)), {}, None, [0], 0, "place"]
)
def test_a_place_that_is_none(answers, asked, data):
    found = answers.show(asked, 7, False, 200, None, 1, 1, 1)[2]
    said = answers.explain(asked, found, SimpleNamespace(_data=data))
    assert "Why" not in str(said)


def test_a_file_that_was_not_uploaded(answers, made, tmp_path):
    Image.open(made.images[4]).save(tmp_path / "own.png")
    (made.index.parent / "link.png").symlink_to(tmp_path / "own.png")
    folder = made.index.parent
    around = f"{folder}/../{tmp_path.name}/own.png"
    for path in (tmp_path / "own.png", folder / "link.png", around, folder, folder / "none.png"):
        upload = {"path": str(path), "orig_name": "<i>.png"}
        asked, said, why, found = answers.ask(upload, 7, False, 200, [], 1, 1, 1)
        assert (asked, why, found) == (None, "", [])
        assert "&lt;i&gt;.png: was not uploaded, or is removed by now; drop the image" in said
    said = answers.ask({"path": "", "orig_name": ""}, 7, False, 200, [], 1, 1, 1)[1]
    assert "the image: was not uploaded" in said


@pytest.mark.parametrize(
    "options",
    [
        (None, False, 200, [], 1, 1, 1),
        (7, False, float("inf"), [], 1, 1, 1),
        (7, False, 200, 5, 1, 1, 1),
        (7, False, 200, [], "one", 1, 1),
    ],
)
def test_values_of_no_control_are_told(answers, asked, options):
    hits, why, found = answers.show(asked, *options)
    assert 'role="alert"' in hits
    assert (why, found) == ("", [])


def test_bounds_of_the_controls_hold_for_every_request(answers, asked, monkeypatch):
    seen = {}

    def search(query, k, **options):
        seen.update(options, k=k)
        return []

    monkeypatch.setattr(answers.engine, "search", search)
    answers.show(asked, 10**9, True, 10**9, [], 1, 1, 1)
    assert (seen["k"], seen["candidates"]) == (100, 1000)


def test_no_image(answers, made):
    upload = {"path": str(made.checkpoint), "orig_name": "<i>.png"}
    asked, said, why, found = answers.ask(upload, 7, False, 200, [], 1, 1, 1)
    assert asked is None
    assert 'role="alert"' in said
    assert "&lt;i&gt;.png: this is no image, or a broken one" in said
    assert (why, found) == ("", [])
    assert answers.show(None, 7, False, 200, None, 1, 1, 1)[2] == []


def test_the_image_is_taken_back(answers):
    assert answers.ask(None, 7, False, 200, [], 1, 1, 1) == (None, answers.prompt(), "", [])


@pytest.mark.parametrize(
    ("cameras", "weights", "message"),
    [([0, 1, 2], (1, 1, 1), "leaves no image"), ([], (0, 0, 0), "not all of them 0")],
)
def test_options_that_cannot_be(answers, asked, cameras, weights, message):
    hits, why, found = answers.show(asked, 7, False, 200, cameras, *weights)
    assert message in hits
    assert (why, found) == ("", [])


def texts(page) -> str:
    return str(page.get_config_file()["components"])


def test_what_is_said_of_a_gallery_without_parts_and_cameras(made, drawn):
    model = module()
    from ..tiny import embeddings

    rows = model.embed(made.images[:3])
    gallery = Gallery.build(embeddings(rows, fingerprint=model.fingerprint()))
    page = texts(build_page(SearchEngine(gallery, model)))
    assert "hold the global feature alone" in page
    assert "The gallery knows no cameras" in page
    assert "part 1" not in page


def test_the_page_says_what_it_is_not_for(answers):
    page = texts(build_page(answers.engine))
    assert "not proven to be the same person" in page
    assert "hold the global feature alone" not in page
    assert "part 2" in page


def test_says_that_a_compressed_index_is_approximate(answers, asked, monkeypatch):
    monkeypatch.setattr(answers.engine.gallery, "recall", 0.9)
    assert "recall@10 was 0.900" in answers.show(asked, 3, False, 200, None, 1, 1, 1)[0]


def test_a_picture_of_many_pixels_is_refused_before_it_is_decoded(answers, made, monkeypatch):
    monkeypatch.setattr(uploads, "MOST_PIXELS", 100)
    upload = {"path": str(made.images[4]), "orig_name": "4.png"}
    asked, hits, _, found = answers.ask(upload, 7, False, 200, [], 1, 1, 1)
    assert asked is None
    assert found == []
    assert "4.png: 32 x 64 are more than 100 pixels; drop a smaller one" in hits


def test_one_upload_is_decoded_at_a_time(answers, made, monkeypatch):
    """In one thread, whichever asks: each would keep the memory of a decoded picture."""
    held, threads = [], set()

    def watched(path):
        held.append(answers.lock.locked())
        threads.add(get_ident())
        return read(path)

    monkeypatch.setattr(search_page, "read_upload", watched)
    upload = {"path": str(made.images[4]), "orig_name": "4.png"}
    asking = [Thread(target=answers.ask, args=(upload, 7, False, 200, [], 1, 1, 1)) for _ in "ab"]
    for one in asking:
        one.start()
    for one in asking:
        one.join()
    assert held == [True, True]
    assert len(threads) == 1
