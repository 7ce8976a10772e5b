from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from pplr_lightning.cli import main
from pplr_lightning.data import Sample
from pplr_lightning.gallery import Gallery
from pplr_lightning.gallery.embeddings import write_embeddings

from ..tiny import module, save

pytest.importorskip("faiss")


@pytest.fixture(scope="module")
def images(drawn):
    return sorted((drawn / "bounding_box_test").glob("0*.png"))[:12]


@pytest.fixture(scope="module")
def folder(images, tmp_path_factory):
    """A gallery of 12 images."""
    return index(images, tmp_path_factory.mktemp("gallery"), "global", [-1] * 12)


def index(images, root, kind, cameras):
    """Builds a gallery as a user does."""
    made = module()
    samples = [Sample(str(path), number, cameras[number]) for number, path in enumerate(images)]
    vectors, recipe = made.embed(images, kind=kind), made.fingerprint(kind=kind)
    write_embeddings(root / "e.parquet", samples, vectors, recipe)
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


class TestOptions:
    """Each says to the gallery what it says in the help."""

    @pytest.fixture
    def both(self, images, options, tmp_path):
        """A gallery of all branches, of two cameras."""
        (tmp_path / "both").mkdir()
        cameras = [number % 2 for number in range(12)]
        return index(images, tmp_path / "both", "both", cameras)

    def searched(self, run, both, options, images, *more):
        return run("search", *options[1:], f"--index={both}", "--query", str(images[4]), *more)

    def test_rerank(self, run, both, options, images, capsys, monkeypatch):
        monkeypatch.setenv("COLUMNS", "300")
        found = self.searched(run, both, options, images, "--rerank")
        query = module().embed([images[4]], kind="both")
        expected = Gallery.load(both).search(query, rerank=True)
        assert torch.equal(found.rows, expected.rows)
        assert torch.allclose(found.distance, expected.distance, atol=1e-5)
        output = capsys.readouterr().out
        (first,) = [line for line in output.splitlines() if "│    1 │" in line]
        values = [cell.strip() for cell in first.split("│")[1:-1]]
        assert values == [
            "1", f"{found.similarity[0, 0]:.3f}", f"{found.distance[0, 0]:.3f}", "4", "0",
            str(images[4]),
        ]  # fmt: skip
        assert "re-ranked by the neighbours they share with the query" in " ".join(output.split())

    def test_without_cameras(self, run, both, options, images):
        found = self.searched(run, both, options, images, "--without_cameras", "0")
        assert set(found.rows[0].tolist()) == set(range(1, 12, 2))

    def test_weights(self, run, both, options, images):
        found = self.searched(run, both, options, images, "--weights", "0", "0", "2")
        whole = module().embed(images, kind="both").unflatten(1, (3, -1))[:, 2] * 3**0.5
        expected = (whole[4] @ whole.T).sort(descending=True).values[:10]
        assert torch.allclose(found.similarity[0], expected, atol=1e-5)

    @pytest.mark.parametrize(
        ("gallery", "message"),
        [
            ("both", "error: 2 weights [1.0, 2.0]: give 3, of global, part 1, part 2"),
            ("folder", "error: weights [1.0, 2.0]: the gallery's vectors hold the global feature"),
        ],
    )
    def test_weights_of_other_branches(
        self, run, options, images, capsys, request, gallery, message
    ):
        where = f"--index={request.getfixturevalue(gallery)}"
        with pytest.raises(SystemExit):
            run("search", *options, where, "--query", str(images[0]), "--weights", "1", "2")
        assert capsys.readouterr().err.strip().splitlines()[-1].startswith(message)


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

    @pytest.mark.parametrize(
        ("query", "message"),
        [
            ("nowhere.jpg", "error: [Errno 2] No such file or directory: 'nowhere.jpg'"),
            ("setup.cfg", "error: setup.cfg: cannot be read as an image ("),
        ],
    )
    def test_a_query_that_is_no_image(self, run, capsys, options, images, tmp_path, query, message):
        error = self.fails(run, capsys, tmp_path, *options, "--query", str(images[0]), query)
        assert error.startswith(message)

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

    def test_a_sheet_that_is_a_folder(self, run, capsys, tmp_path):
        options = ["--index=nowhere", "--ckpt_path=nowhere", "--query=nowhere"]  # none is read
        error = self.fails(run, capsys, tmp_path, *options, f"--sheet={tmp_path}")
        assert error == f"error: --sheet {tmp_path}: is a folder; give the name of a file"

    def test_none_to_show(self, run, capsys, options):
        with pytest.raises(SystemExit) as stop:
            run("search", *options, "--query", "a.jpg", "--top=0")
        assert stop.value.code == 2
        assert "--top 0: must be at least 1" in capsys.readouterr().err
