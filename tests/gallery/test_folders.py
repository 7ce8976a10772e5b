from __future__ import annotations

import json
import resource
from pathlib import Path
from threading import Thread

import pyarrow.parquet as pq
import pytest
import torch

from pplr_lightning.atomic_write import locked
from pplr_lightning.gallery import Gallery
from pplr_lightning.gallery import gallery as gallery_module
from pplr_lightning.gallery.folders import settle

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
        assert json.loads((folder / "meta.json").read_text())["fingerprint"]["image_size"] == [
            64,
            32,
        ]
        assert [path.name for path in folder.parent.iterdir()] == ["some.index"]

    def test_is_replaced_whole(self, folder):
        mapped = Gallery.load(folder)
        mapped.save(folder)  # while the index is read from there
        assert len(list(folder.iterdir())) == 3
        assert [path.name for path in folder.parent.iterdir()] == ["some.index"]
        assert mapped.search(QUERIES, 3).rows.tolist() == (
            Gallery.load(folder).search(QUERIES, 3).rows.tolist()
        )

    def test_a_full_disk_is_named_and_keeps_what_was_there(self, folder):
        rows = vectors(60, dimension=512)
        before = (folder / "index.faiss").read_bytes()
        limits = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (2**14, limits[1]))
        try:
            with pytest.raises(OSError, match=r"some\.index: cannot be written \(File too large\)"):
                Gallery.build(embeddings(rows)).save(folder)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        assert (folder / "index.faiss").read_bytes() == before
        assert [path.name for path in folder.parent.iterdir()] == ["some.index"]

    def test_takes_the_place_of_galleries_alone(self, gallery, folder, tmp_path):
        (folder / "thesis.txt").touch()
        (tmp_path / "file").touch()
        for path, message in (
            (folder, r"some.index holds thesis.txt, which are not a gallery's: name another"),
            (tmp_path, r"holds file, some.index, which are not"),
            (tmp_path / "file", r"file is a file, not a gallery's"),
        ):
            with pytest.raises(FileExistsError, match=message):
                gallery.save(path)
        assert len(list(folder.iterdir())) == 4
        (tmp_path / "empty").mkdir()
        gallery.save(tmp_path / "empty")
        assert len(Gallery.load(tmp_path / "empty")) == 60

    def test_leaves_what_lies_beside_it(self, folder):
        beside = [folder.with_name(f"some.index.{end}") for end in ("old", "part")]
        for path in beside:
            path.mkdir()
        Gallery.load(folder).save(folder)
        assert all(path.is_dir() for path in beside)

    def test_is_changed_as_it_was_loaded(self, folder, monkeypatch):
        """Whatever has taken its place since."""
        monkeypatch.setattr("pplr_lightning.gallery.faiss_index.CHUNK", 7)
        first, second = Gallery.load(folder), Gallery.load(folder)
        second.remove(["a/0.jpg"])
        second.save(folder)
        first.add(embeddings(vectors(5, seed=9), prefix="b"))
        first.save(folder)
        loaded = Gallery.load(folder)
        assert len(loaded) == 65
        rows = torch.arange(65)
        assert torch.equal(loaded.vectors(rows)[:60], ROWS)
        assert torch.equal(loaded.vectors(rows)[60:], vectors(5, seed=9))

    def test_of_two_that_change_it_at_once_one_is_refused(self, folder, gallery):
        first, second = Gallery.load(folder), Gallery.load(folder)
        second.remove(["a/0.jpg"])
        second.save(folder, exclusive=True)
        for other in (first, gallery):
            with pytest.raises(FileExistsError, match=r"some.index was changed by another pro"):
                other.save(folder, exclusive=True)
        assert len(Gallery.load(folder)) == 59
        assert [path.name for path in folder.parent.iterdir()] == ["some.index"]

    def test_is_read_anew_if_it_changes_meanwhile(self, folder, gallery, monkeypatch):
        def change(_):
            monkeypatch.undo()
            gallery.save(folder)
            raise ValueError("a broken gallery")

        monkeypatch.setattr(gallery_module, "read_gallery", change)
        assert len(Gallery.load(folder)) == 60

    def test_an_error_while_saving_leaves_the_old_one(self, folder, gallery, monkeypatch):
        monkeypatch.setattr(pq, "write_table", lambda *_, **__: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            gallery.save(folder)
        assert len(Gallery.load(folder)) == 60

    def test_missing(self, tmp_path):
        with pytest.raises(FileNotFoundError, match=r"x.index: no such gallery$"):
            Gallery.load(tmp_path / "x.index")

    def test_update_broken_off_between_two_names(self, folder, gallery):
        """By a kill: what was there is put back, by whoever reads or writes it next."""
        for read in (True, False):
            folder.rename(folder.with_name("some.index.123.old"))
            if read:
                assert len(Gallery.load(folder)) == 60
            else:
                with pytest.raises(FileExistsError, match=r"some.index was changed by another"):
                    gallery.save(folder, exclusive=True)
            assert [path.name for path in folder.parent.iterdir()] == ["some.index"]

    def test_what_cannot_be_put_back_is_named(self, folder, monkeypatch):
        folder.rename(folder.with_name("some.index.123.old"))
        monkeypatch.setattr(Path, "rename", lambda path, _: path.with_name("no").rmdir())
        with pytest.raises(FileNotFoundError, match=r"before is .*some.index.123.old"):
            Gallery.load(folder)

    def test_what_an_update_has_replaced_is_removed(self, folder):
        folder.with_name("some.index.123.old").mkdir()
        settle(folder)
        assert [path.name for path in folder.parent.iterdir()] == ["some.index"]

    def test_what_a_living_update_has_called_old_is_left_to_it(self, folder, gallery):
        old = folder.with_name("some.index.123.old")
        with locked(folder):
            folder.rename(old)
            saving = Thread(target=Gallery.load, args=(folder,))
            saving.start()
            saving.join(0.2)
            assert saving.is_alive()  # it waits
            gallery.save(folder.with_name("new.index"))
            folder.with_name("new.index").rename(folder)
        saving.join()
        assert old.is_dir()
        assert folder.is_dir()

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
