from __future__ import annotations

from pathlib import Path

import matplotlib as mpl
import numpy as np
import pytest
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import Normalize
from PIL import Image

from pplr_lightning.visualization import clusters_figure
from pplr_lightning.visualization.layout import (
    Sheet,
    new_page,
    on_white,
    sample,
    sampled,
    save_figure,
    spread,
    thumbnail,
)

from ..generators import generators
from .reading import check_readable, images, texts


class TestSample:
    def test_is_the_same_for_the_same_seed(self):
        assert sample(1000, 10, 3) == sample(1000, 10, 3) != sample(1000, 10, 4)

    def test_is_ascending_and_without_repetition(self):
        drawn = sample(1000, 100, 0)
        assert drawn == sorted(set(drawn))
        assert len(drawn) == 100
        assert max(drawn) < 1000

    def test_takes_all_where_there_are_few(self):
        assert sample(3, 10, 0) == [0, 1, 2]
        assert sample(0, 10, 0) == []

    def test_leaves_the_global_generators_alone(self):
        before = generators()
        sample(1000, 10, 0)
        assert generators() == before


def test_says_what_was_sampled():
    assert sampled(10, 10, "images") == "all 10 images"
    assert sampled(500, 12936, "images") == "500 of 12,936 images, sampled"


def test_spread_keeps_the_first_and_the_last():
    assert spread(range(101), 5) == [0, 25, 50, 75, 100]
    assert spread([3, 1], 5) == [3, 1]


def test_a_long_caption_is_wrapped_into_the_figure(tmp_path):
    figure, _ = new_page(4.0, 2.0, title="Title", caption="many words in a long caption " * 20)
    check_readable(figure, tmp_path)


def test_thumbnails_are_no_larger_than_shown(odd):
    shapes = {one.path.split("/")[-1]: thumbnail(one.path) for one in odd}
    assert shapes["big.png"].shape == (164, 82, 3)
    assert shapes["pixel.png"].shape == (1, 1, 3)
    assert shapes["grey.png"].shape == (90, 50, 3)
    assert shapes["text.png"] is None
    assert shapes["missing.png"] is None


class TestSheet:
    def test_images_keep_their_proportions(self, odd):
        sheet = Sheet(1, 4, title="", caption="")
        _, wide, tall, big = (sheet.image(0, place, odd[place].path) for place in range(4))
        assert wide.width == pytest.approx(0.62)
        assert wide.height < 0.01
        assert tall.height == pytest.approx(1.05)
        assert big.size == pytest.approx((0.525, 1.05))

    @on_white
    def test_images_and_masks_stand_upright(self, tmp_path):
        image = Image.new("RGB", (20, 40), "blue")
        image.paste("red", (0, 0, 20, 20))
        image.save(tmp_path / "image.png")
        sheet = Sheet(1, 2, title="Title", caption="Caption")
        plain, masked = (sheet.image(0, column, str(tmp_path / "image.png")) for column in (0, 1))
        sheet.mask(masked, torch.tensor([1.0, 0.0]), cmap="gray", norm=Normalize(0, 1))
        drawn = pixels(sheet.figure)

        def colours(x):
            places = sheet.axes.transData.transform([(x, plain.y0 + s) for s in (0.2, 0.8)])
            return [drawn[len(drawn) - round(y), round(x), :3].tolist() for x, y in places]

        assert colours((plain.x0 + plain.x1) / 2) == [[255, 0, 0], [0, 0, 255]]
        assert colours(masked.x1 - 0.04) == [[255, 255, 255], [0, 0, 0]]  # not diluted

    @on_white
    def test_a_placeholder_stands_for_what_cannot_be_read(self, odd, tmp_path):
        sheet = Sheet(1, 2, title="", caption="c")
        sheet.image(0, 0, odd[-1].path, words="cluster 1")
        sheet.image(0, 1, odd[0].path)
        assert "not\nreadable" in texts(sheet.figure)
        assert len(images(sheet.figure)) == 1
        check_readable(sheet.figure, tmp_path)

    @on_white
    def test_without_rows_it_says_so(self, tmp_path):
        sheet = Sheet(0, 5, title="Title", caption="Caption")
        assert "nothing to show" in texts(sheet.figure)
        check_readable(sheet.figure, tmp_path)


def test_is_dark_on_white_whatever_the_users_style_is(train, tmp_path):
    labels = torch.arange(len(train)) % 5
    plain = pixels(clusters_figure(train, labels))
    with mpl.style.context("dark_background"), mpl.rc_context({"font.size": 20}):
        figure = clusters_figure(train, labels)
        assert (pixels(figure) == plain).all()
        check_readable(figure, tmp_path)


def pixels(figure):
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())


def test_a_figure_is_saved_under_a_name_or_a_path(tmp_path):
    figure, _ = new_page(4, 3, title="A title", caption="A caption")
    for path in (tmp_path / "new/one.png", str(tmp_path / "new/two.png")):
        save_figure(figure, path)
        with Image.open(path) as image:
            assert image.format == "PNG"


def test_a_figure_is_saved_whole_or_not_at_all(tmp_path, monkeypatch):
    figure, _ = new_page(4, 3, title="A title", caption="A caption")
    path = tmp_path / "one.png"
    save_figure(figure, path)
    assert list(tmp_path.iterdir()) == [path]
    before = path.read_bytes()

    def stops(file, **options):
        Path(file).write_bytes(before[:100])
        raise KeyboardInterrupt

    monkeypatch.setattr(figure, "savefig", stops)
    with pytest.raises(KeyboardInterrupt):
        save_figure(figure, path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]
