from __future__ import annotations

import pytest
from matplotlib.colors import to_hex
from matplotlib.patches import Rectangle

from pplr_lightning.data import Sample
from pplr_lightning.evaluation.rankings import Ranking
from pplr_lightning.visualization import caption_of, ranking_figure
from pplr_lightning.visualization.layout import BLACK, GREEN, GREY, RED

from .reading import check_readable, images, texts


@pytest.fixture
def gallery(train):
    """Of person 5 under camera 1: another camera, the same, another person, junk, camera 1."""
    ids = [(5, 2), (5, 1), (6, 2), (-1, 1), (7, 1)]
    return [Sample(train[i].path, *pair) for i, pair in enumerate(ids)]


def frames(figure):
    patches = figure.axes[0].patches
    found = [one for one in patches if isinstance(one, Rectangle) and not one.get_fill()]
    return [(to_hex(one.get_edgecolor()), one.get_linestyle()) for one in found]


def test_marks_matches_by_more_than_colour(train, gallery, tmp_path):
    ranking = Ranking("best", 0, [0, 1, 2, 3, 4], 0.5)
    figure = ranking_figure([ranking], [Sample(train[9].path, 5, 1)], gallery, when="epoch 3")
    found = [(BLACK, "-"), (GREEN, "-"), (GREY, ":"), (RED, "--"), (GREY, ":"), (RED, "--")]
    assert frames(figure) == found
    written = texts(figure)
    assert "Ranking lists, epoch 3" in written
    assert "best\nAP 50.0 %" in written
    words = ["query  c1", "1 ✓  c2", "-  c1 =", "2 ✗  c2", "-  c1 =", "3 ✗  c1 ="]
    assert [text for text in written if "  c" in text] == words
    assert "1 of 1 queries" in caption_of(figure)
    assert "the 5 nearest of 5 gallery images" in caption_of(figure)
    check_readable(figure, tmp_path)


def test_without_cameras_none_is_named(train, tmp_path):
    gallery = [Sample(train[0].path, 5, -1), Sample(train[1].path, 6, -1)]
    figure = ranking_figure([Ranking("best", 0, [1, 0], 0.5)], [gallery[0]], gallery)
    assert {"query", "1 ✗", "-"} <= set(texts(figure))  # as the metrics count it
    check_readable(figure, tmp_path)


def test_matches_of_the_same_camera(train, gallery):
    query = Sample(gallery[0].path, 5, 1)  # which is in the gallery, too
    figure = ranking_figure([Ranking("best", 0, [0, 1], 0.5)], [query], gallery, same_camera=True)
    assert frames(figure) == [(BLACK, "-"), (GREY, ":"), (GREEN, "-")]
    assert "because it is the query's own file, or junk" in caption_of(figure)


@pytest.mark.parametrize(("clothes", "counted"), [("changed", [1]), ("same", [0])])
def test_matches_in_other_clothes(train, clothes, counted):
    query = Sample(train[0].path, 5, 1, clothes_id=3)
    gallery = [Sample(train[c].path, 5, 2, clothes_id=c) for c in (3, 4)]
    figure = ranking_figure([Ranking("best", 0, [0, 1], 0.5)], [query], gallery, clothes=clothes)
    expected = [(GREEN, "-") if place in counted else (GREY, ":") for place in (0, 1)]
    assert frames(figure) == [(BLACK, "-"), *expected]
    words = {"changed": "in the same clothes", "same": "in other clothes"}[clothes]
    assert f"own camera, {words}, the query's own file" in caption_of(figure)


def test_real_lists(splits, tmp_path):
    rankings = [Ranking(name, i, list(range(10)), 0.3) for i, name in enumerate("abc")]
    figure = ranking_figure(rankings, splits.query, splits.gallery)
    assert len(images(figure)) == 33
    check_readable(figure, tmp_path)


def test_nothing_and_odd_images(odd, tmp_path):
    check_readable(ranking_figure([], [], []), tmp_path)
    figure = ranking_figure([Ranking("best", 0, list(range(len(odd))), 1.0)], odd[-1:], odd)
    assert texts(figure).count("not\nreadable") == 3
    check_readable(figure, tmp_path)
