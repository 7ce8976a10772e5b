from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from pplr_lightning.data import Sample
from pplr_lightning.gallery import Gallery
from pplr_lightning.gallery.embeddings import write_embeddings

from ..tiny import module, save

pytest.importorskip("faiss")


@pytest.fixture(scope="module")
def images(drawn):
    return sorted((drawn / "bounding_box_test").glob("0*.png"))[:12]


@pytest.fixture(scope="module")
def folder(images, tiny_checkpoint, tmp_path_factory):
    """A gallery of 12 images."""
    root = tmp_path_factory.mktemp("gallery")
    made = module()
    samples = [Sample(str(path), number, -1) for number, path in enumerate(images)]
    write_embeddings(root / "e.parquet", samples, made.embed(images), made.recipe())
    from pplr_lightning.cli import main

    main(["index", f"--embeddings={root / 'e.parquet'}", f"--out={root / 'gallery.index'}"])
    return root / "gallery.index"


@pytest.fixture
def options(folder, tiny_checkpoint, tmp_path):
    return [
        f"--index={folder}",
        f"--ckpt_path={tiny_checkpoint}",
        f"--sheet={tmp_path / 'new/found.png'}",
    ]


def test_finds_the_image_itself_first(run, options, images, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "300")
    queries = [str(images[7]), str(images[2])]
    found = run("search", *options, "--query", *queries, "--top", "3")
    assert found.rows.shape == (2, 3)
    assert found.rows[:, 0].tolist() == [7, 2]
    assert found.similarity[:, 0].tolist() == pytest.approx([1, 1], abs=1e-5)
    output = capsys.readouterr().out
    assert output.count("of 12 images") == 2
    lines = [line for line in output.splitlines() if str(images[7]) in line and "1.000" in line]
    assert [cell.strip() for cell in lines[0].split("│")[1:-1]] == [
        "1", "1.000", "7", str(images[7]),
    ]  # fmt: skip
    assert "person" in output
    assert "camera" not in output  # none is known

    width, height = Image.open(tmp_path / "new/found.png").size
    assert width > 300
    assert height > 300
    assert f"drawn in {tmp_path / 'new/found.png'}" in output


def test_images_that_were_moved_are_still_listed(run, options, images, folder, tmp_path):
    moved = Gallery.load(folder)
    names = [f"moved/{number}.jpg" for number in range(12)]
    moved.items = moved.items.set_column(0, "path", [names])
    moved.save(tmp_path / "moved.index")
    options = [*options[1:], f"--index={tmp_path / 'moved.index'}"]
    found = run("search", *options, "--query", str(images[0]), "--top=100")
    assert found.rows.shape == (1, 12)
    pixels = np.asarray(Image.open(tmp_path / "new/found.png").convert("L"))
    assert pixels.std() > 0


class TestBadInput:
    def fails(self, run, capsys, tmp_path, *options) -> str:
        with pytest.raises(SystemExit) as stop:
            run("search", *options)
        assert stop.value.code == 1
        assert not (tmp_path / "new").exists()
        return capsys.readouterr().err.strip().splitlines()[-1]

    def test_another_model(self, run, capsys, options, images, tmp_path):
        other = save(module(seed=1), tmp_path / "other.ckpt")
        error = self.fails(
            run, capsys, tmp_path, *options, f"--ckpt_path={other}", "--query", str(images[0])
        )
        assert "error: the gallery's vectors are of another model (weights" in error
        assert f"than those of {other}: use the checkpoint that they were made with" in error

    @pytest.mark.parametrize("query", ["nowhere.jpg", "setup.cfg"])
    def test_a_query_that_is_no_image(self, run, capsys, options, images, tmp_path, query):
        error = self.fails(run, capsys, tmp_path, *options, "--query", str(images[0]), query)
        assert error.startswith(f"error: {query}: cannot be read as an image (")

    @pytest.mark.parametrize(
        ("option", "message"),
        [
            ("--index=nowhere.index", "error: nowhere.index: no such gallery"),
            ("--index=configs", "error: configs: no gallery, or a broken one (no index.faiss"),
            ("--ckpt_path=nowhere.ckpt", "error: nowhere.ckpt: no such checkpoint"),
        ],
    )
    def test_missing(self, run, capsys, options, images, tmp_path, option, message):
        assert message in self.fails(
            run, capsys, tmp_path, *options, option, "--query", str(images[0])
        )

    def test_an_empty_gallery(self, run, capsys, options, images, folder, tmp_path):
        empty = Gallery.load(folder)
        empty.remove([str(path) for path in images])
        empty.save(tmp_path / "empty.index")
        assert "the gallery is empty: add images" in self.fails(
            run, capsys, tmp_path, *options, f"--index={tmp_path / 'empty.index'}", "--query",
            str(images[0]),
        )  # fmt: skip

    def test_none_to_show(self, run, capsys, options):
        with pytest.raises(SystemExit) as stop:
            run("search", *options, "--query", "a.jpg", "--top=0")
        assert stop.value.code == 2
        assert "--top 0: must be at least 1" in capsys.readouterr().err
