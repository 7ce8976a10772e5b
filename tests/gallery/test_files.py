from __future__ import annotations

import json

import pyarrow.parquet as pq
import pytest

from pplr_lightning.gallery import Gallery

from ..tiny import embeddings, vectors

pytest.importorskip("faiss")
ROWS = vectors(60)
QUERIES = vectors(7, seed=1)


@pytest.fixture
def gallery():
    return Gallery.build(embeddings(ROWS))


class TestFolder:
    @pytest.fixture
    def folder(self, gallery, tmp_path):
        gallery.save(tmp_path / "some.index")
        return tmp_path / "some.index"

    def test_holds_three_files(self, folder):
        assert sorted(path.name for path in folder.iterdir()) == [
            "index.faiss", "items.parquet", "meta.json",
        ]  # fmt: skip
        assert json.loads((folder / "meta.json").read_text())["recipe"]["image_size"] == [64, 32]
        assert [path.name for path in folder.parent.iterdir()] == ["some.index"]

    def test_is_replaced_whole(self, folder):
        mapped = Gallery.load(folder)
        (folder / "of the old one").touch()
        mapped.save(folder)  # while the index is read from there
        assert len(list(folder.iterdir())) == 3
        assert [path.name for path in folder.parent.iterdir()] == ["some.index"]
        assert mapped.search(QUERIES, 3).rows.tolist() == (
            Gallery.load(folder).search(QUERIES, 3).rows.tolist()
        )

    def test_an_error_while_saving_leaves_the_old_one(self, folder, gallery, monkeypatch):
        monkeypatch.setattr(pq, "write_table", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            gallery.save(folder)
        assert len(Gallery.load(folder)) == 60

    def test_missing(self, tmp_path):
        with pytest.raises(FileNotFoundError, match=r"x.index: no such gallery$"):
            Gallery.load(tmp_path / "x.index")

    def test_update_broken_off_between_two_names(self, folder):
        folder.rename(folder.with_name("some.index.old"))
        with pytest.raises(FileNotFoundError, match=r"before is .*some.index.old"):
            Gallery.load(folder)

    @pytest.mark.parametrize("name", ["index.faiss", "items.parquet", "meta.json"])
    @pytest.mark.parametrize("damage", ["cut off", "emptied", "removed", "of something else"])
    def test_broken(self, folder, name, damage):
        content = (folder / name).read_bytes()
        if damage == "removed":
            (folder / name).unlink()
        else:
            other = {"cut off": content[: len(content) // 2], "emptied": b""}
            (folder / name).write_bytes(other.get(damage, b"[1, 2]\n" * 50))
        with pytest.raises(ValueError, match=r"some.index: .*broken") as error:
            Gallery.load(folder)
        assert "\n" not in str(error.value)

    def test_files_of_two_galleries(self, folder, tmp_path):
        Gallery.build(embeddings(ROWS[:30])).save(tmp_path / "other.index")
        (tmp_path / "other.index/items.parquet").replace(folder / "items.parquet")
        with pytest.raises(ValueError, match=r"broken gallery \(60 vectors and 30 rows"):
            Gallery.load(folder)

    def test_of_another_format(self, folder):
        meta = (folder / "meta.json").read_text()
        (folder / "meta.json").write_text(meta.replace('"format": 1', '"format": 2'))
        with pytest.raises(ValueError, match="of format 2, this version reads 1"):
            Gallery.load(folder)
