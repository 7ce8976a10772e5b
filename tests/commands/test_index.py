from __future__ import annotations

import sys
from dataclasses import replace

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from pplr_lightning.data import Sample
from pplr_lightning.gallery import Gallery
from pplr_lightning.gallery.embeddings import write_embeddings

from ..tiny import RECIPE, vectors

pytest.importorskip("faiss")


@pytest.fixture
def written(tmp_path):
    """Writes embeddings and returns the file."""

    def write(name, rows, recipe=RECIPE):
        samples = [Sample(f"{name}/{number}.jpg", number, -1) for number in range(len(rows))]
        write_embeddings(tmp_path / f"{name}.parquet", samples, rows, recipe)
        return str(tmp_path / f"{name}.parquet")

    return write


@pytest.fixture
def index(run, written, tmp_path):
    folder = tmp_path / "new/gallery.index"
    run("index", f"--embeddings={written('a', vectors(30))}", f"--out={folder}")
    return folder


def paths(folder) -> set[str]:
    return set(Gallery.load(folder).items["path"].to_pylist())


ALL = {f"a/{number}.jpg" for number in range(30)}


def test_build(index):
    assert paths(index) == ALL
    assert Gallery.load(index).kind == "flat"


def test_add_and_remove_in_its_place(run, index, written):
    new = written("b", vectors(3, seed=1))
    run("index", f"--index={index}", "--add", new, "--remove", "a/1.jpg", "a/2.jpg")
    assert paths(index) == (ALL - {"a/1.jpg", "a/2.jpg"}) | {
        f"b/{number}.jpg" for number in range(3)
    }


def test_change_into_another_folder(run, index, tmp_path, capsys):
    run("index", f"--index={index}", "--remove", "a/1.jpg", f"--out={tmp_path / 'fewer.index'}")
    assert (
        f"29 images of 16 dimensions are in {tmp_path / 'fewer.index'}" in capsys.readouterr().out
    )
    assert paths(tmp_path / "fewer.index") == ALL - {"a/1.jpg"}
    assert paths(index) == ALL


@pytest.mark.parametrize(("limit", "kind"), [("0.0001", "ivfsq"), ("0.00001", "ivfpq")])
def test_compressed_beyond_the_memory_limit(run, written, tmp_path, capsys, limit, kind):
    source = written("many", vectors(10_000, dimension=8))
    folder = tmp_path / "gallery.index"
    run("index", f"--embeddings={source}", f"--out={folder}", f"--memory_limit={limit}")
    gallery = Gallery.load(folder)
    assert gallery.kind == kind
    assert (
        f"compressed ({kind}): a recall@10 of {gallery.recall:.3f} against exact search"
        in capsys.readouterr().out
    )


class TestBadInput:
    def fails(self, run, capsys, *options, code=1) -> str:
        with pytest.raises(SystemExit) as stop:
            run("index", *options)
        assert stop.value.code == code
        return capsys.readouterr().err.strip().splitlines()[-1]

    def test_nothing_to_build_of(self, run, capsys, written, tmp_path):
        empty = written("empty", torch.empty(0, 16))
        error = self.fails(run, capsys, f"--embeddings={empty}", f"--out={tmp_path / 'x.index'}")
        assert error.startswith(f"error: {empty}: holds no image")

    @pytest.mark.parametrize(
        ("source", "message"),
        [
            ("nowhere.parquet", "nowhere.parquet: no such embeddings file"),
            ("setup.cfg", "setup.cfg: no whole parquet file"),
        ],
    )
    def test_no_embeddings(self, run, capsys, tmp_path, source, message):
        out = tmp_path / "x.index"
        assert message in self.fails(run, capsys, f"--embeddings={source}", f"--out={out}")
        assert not out.exists()

    def test_of_another_model(self, run, capsys, index, written):
        other = written("b", vectors(3), replace(RECIPE, weights="fedcba9876543210"))
        error = self.fails(run, capsys, f"--index={index}", f"--add={other}")
        assert "another model (weights 0123456789ab, here fedcba987654) than the vectors" in error
        assert paths(index) == ALL

    def test_what_is_there_already(self, run, capsys, index, written):
        again = written("a", vectors(3))
        assert "in the gallery already: a/0.jpg (2 more like it)" in self.fails(
            run, capsys, f"--index={index}", f"--add={again}"
        )
        assert "is there already: name another folder" in self.fails(
            run, capsys, f"--embeddings={again}", f"--out={index}"
        )

    def test_an_image_that_is_there_twice(self, run, capsys, written, tmp_path):
        rows = written("a", vectors(3))
        table = pq.read_table(rows)
        pq.write_table(pa.concat_tables([table, table]), rows)
        error = self.fails(run, capsys, f"--embeddings={rows}", f"--out={tmp_path / 'new'}")
        assert f"{rows}: there twice: a/0.jpg (2 more like it); embed each image once" in error

    def test_a_folder_that_is_there(self, run, capsys, index, tmp_path):
        (tmp_path / "precious").mkdir()
        (tmp_path / "precious/thesis.txt").touch()
        error = self.fails(
            run, capsys, f"--index={index}", "--remove=a/1.jpg", f"--out={tmp_path / 'precious'}"
        )
        assert "precious is there already: name another folder or remove it" in error
        assert [path.name for path in (tmp_path / "precious").iterdir()] == ["thesis.txt"]

    def test_what_is_not_there(self, run, capsys, index):
        assert "not in the gallery: x.jpg" in self.fails(
            run, capsys, f"--index={index}", "--remove", "x.jpg"
        )

    def test_a_broken_gallery(self, run, capsys, index):
        (index / "index.faiss").write_bytes(b"broken")
        assert "a broken gallery" in self.fails(run, capsys, f"--index={index}", "--remove", "x")

    def test_too_few_to_compress(self, run, capsys, written, tmp_path):
        options = (f"--embeddings={written('a', vectors(30))}", f"--out={tmp_path / 'x.index'}")
        assert "got 30: use 'flat'" in self.fails(run, capsys, *options, "--kind=ivfpq")

    def test_without_faiss(self, run, capsys, written, tmp_path, monkeypatch):
        source = written("a", vectors(30))
        monkeypatch.setitem(sys.modules, "faiss", None)
        error = self.fails(run, capsys, f"--embeddings={source}", f"--out={tmp_path / 'x.index'}")
        assert "pip install pplr-lightning[cpu]" in error

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ([], "give --embeddings to build a gallery, or --index to change one"),
            (["--embeddings=a", "--index=b"], "give --embeddings to build a gallery, or --index"),
            (["--embeddings=a"], "give --out"),
            (["--index=a"], "give both"),
            (["--embeddings=a", "--out=b", "--add=c"], "give both"),
            (["--index=a", "--add=b", "--kind=flat"], "--kind: for building a gallery, not for"),
            (
                ["--index=a", "--add=b", "--probes=1", "--memory_limit=1"],
                "--memory_limit, --probes:",
            ),
        ],
    )
    def test_options_that_do_not_go_together(self, run, capsys, options, message):
        assert message in self.fails(run, capsys, *options, code=2)
