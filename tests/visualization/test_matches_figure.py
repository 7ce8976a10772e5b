from __future__ import annotations

from matplotlib.colors import to_hex

from pplr_lightning.visualization import caption_of, matches_figure
from pplr_lightning.visualization.layout import BLACK

from .reading import check_readable, images, texts


def test_a_row_for_each_query(train, tmp_path):
    found = [train[:3], train[3:5]]
    queries = [train[8].path, train[9].path]
    figure = matches_figure(queries, found, [[0.98, 0.5, -0.1], [1, 0.4]], total=1234)
    cameras = [f"  c{one.camera_id}" for row in found for one in row]
    words = ["0.98", "0.50", "-0.10", "1.00", "0.40"]
    expected = [number + camera for number, camera in zip(words, cameras, strict=True)]
    assert [text for text in texts(figure) if text[-1:].isdigit() and "c" in text] == expected
    assert texts(figure).count("query") == 2
    assert len(images(figure)) == 7
    assert {to_hex(one.get_edgecolor()) for one in figure.axes[0].patches} == {BLACK}
    assert "2 queries, each with the 3 most similar of 1,234 images" in caption_of(figure)
    assert "c: its camera" in caption_of(figure)
    check_readable(figure, tmp_path)


def test_cameras_that_are_not_known_and_files_that_are_gone(train):
    gone = train[0]._replace(path="nowhere.jpg", camera_id=-1)
    figure = matches_figure([train[1].path], [[gone]], [[0.5]], total=1)
    assert "0.50" in texts(figure)
    assert "not\nreadable" in texts(figure)
    assert "camera" not in caption_of(figure)


def test_says_that_they_were_reranked(train):
    options = {"total": 1, "reranked": True}
    figure = matches_figure([train[1].path], [train[:1]], [[0.5]], **options)
    assert "Most similar images, re-ranked" in texts(figure)
