from __future__ import annotations

import os
import resource

import pytest

from pplr_lightning import atomic_write
from pplr_lightning.atomic_write import clear_left_over, write_whole, written_whole


def test_takes_the_place_of_a_file_in_a_folder_that_it_makes(tmp_path):
    for text in ("older", "ünger"):
        assert write_whole(tmp_path / "new/report.html", text) == tmp_path / "new/report.html"
    assert (tmp_path / "new/report.html").read_text(encoding="utf-8") == "ünger"
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["report.html"]


@pytest.mark.parametrize("synced", [True, False])
def test_takes_the_place_of_an_empty_folder(tmp_path, synced):
    (tmp_path / "set").mkdir()
    with written_whole(tmp_path / "set", folder=True, synced=synced) as aside:
        (aside / "one").touch()
    assert [path.name for path in (tmp_path / "set").iterdir()] == ["one"]
    assert [path.name for path in tmp_path.iterdir()] == ["set"]


@pytest.mark.parametrize("folder", [True, False])
def test_an_error_leaves_what_was_there(tmp_path, folder):
    path = tmp_path / "page"
    path.write_text("older")

    def fail():
        with written_whole(path, folder=folder) as aside:
            (aside / "text" if folder else aside).write_text("half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    assert path.read_text() == "older"
    assert list(tmp_path.iterdir()) == [path]


def test_so_does_a_write_that_stops_halfway(tmp_path):
    path = tmp_path / "page"
    path.write_text("older")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2**24, limits[1]))
    try:
        with pytest.raises(OSError, match="File too large"):
            write_whole(path, "x" * 2**25)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert path.read_text() == "older"
    assert list(tmp_path.iterdir()) == [path]


def test_follows_no_link(tmp_path, monkeypatch):
    """Neither one under the name of old, nor one that guessed the name, nor one in its place."""
    precious = tmp_path / "thesis.txt"
    precious.write_text("precious")
    (tmp_path / "report.html.part").symlink_to(precious)
    (tmp_path / "report.html").symlink_to(precious)
    write_whole(tmp_path / "report.html", "page")
    assert (tmp_path / "report.html").read_text() == "page"
    assert not (tmp_path / "report.html").is_symlink()
    monkeypatch.setattr(atomic_write, "token_hex", lambda _: "guessed")
    for target in (precious, tmp_path / "nowhere"):
        guessed = tmp_path / f"{target.stem}.html.guessed.part"
        guessed.symlink_to(target)
        with pytest.raises(FileExistsError):
            write_whole(tmp_path / f"{target.stem}.html", "page")
        assert guessed.is_symlink()
    assert precious.read_text() == "precious"
    assert not (tmp_path / "nowhere").exists()


@pytest.mark.parametrize("umask", [0o022, 0o077])
def test_has_the_permissions_of_any_new_file(tmp_path, umask):
    before = os.umask(umask)
    try:
        (tmp_path / "plain").touch()
        write_whole(tmp_path / "whole", "")
    finally:
        os.umask(before)
    assert (tmp_path / "whole").stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_reaches_the_disk_before_its_name_does(tmp_path, monkeypatch):
    synced = []
    monkeypatch.setattr(os, "fsync", lambda _: synced.append((tmp_path / "last.ckpt").exists()))
    with written_whole(tmp_path / "last.ckpt", synced=True):
        pass
    assert synced == [False]


def test_text_that_has_no_utf8(tmp_path):
    """Such as half of a character, which a YAML or a file's name may hold."""
    write_whole(tmp_path / "a.txt", "ä\ud800")
    assert (tmp_path / "a.txt").read_text(encoding="utf-8") == "ä\\ud800"


class TestLeftOver:
    """What a process that was killed had written aside."""

    def test_is_removed_by_the_next_that_writes(self, tmp_path):
        left = [tmp_path / f"page.{number:016x}.part" for number in (1, 2)]
        left[0].write_text("half")
        left[1].mkdir()
        (left[1] / "half").touch()
        write_whole(tmp_path / "page", "whole")
        assert [path.name for path in tmp_path.iterdir()] == ["page"]

    def test_is_left_while_its_writer_lives(self, tmp_path):
        with written_whole(tmp_path / "page") as aside:
            aside.write_text("first")
            write_whole(tmp_path / "page", "second")
            assert aside.read_text() == "first"
        assert (tmp_path / "page").read_text() == "first"
        assert [path.name for path in tmp_path.iterdir()] == ["page"]

    def test_is_no_other_file_and_no_link(self, tmp_path):
        precious = tmp_path / "thesis.txt"
        precious.write_text("precious")
        (tmp_path / f"page.{1:016x}.part").symlink_to(precious)
        (tmp_path / f"other.{1:016x}.part").touch()
        (tmp_path / "page.1.part").touch()
        write_whole(tmp_path / "page", "whole")
        assert len(list(tmp_path.iterdir())) == 5
        assert precious.read_text() == "precious"

    def test_of_a_whole_tree(self, tmp_path):
        (tmp_path / "run/checkpoints").mkdir(parents=True)
        (tmp_path / f"run/checkpoints/last.ckpt.{1:016x}.part").touch()
        (tmp_path / "run/last.ckpt").touch()
        clear_left_over(tmp_path)
        names = sorted(path.name for path in tmp_path.rglob("*"))
        assert names == ["checkpoints", "last.ckpt", "run"]

    def test_one_that_was_taken_for_it_at_once_is_made_anew(self, tmp_path, monkeypatch):
        """Between its making and its lock."""
        made = []

        def lock(path, **_):
            made.append(path)
            if len(made) == 1:
                path.unlink()

        monkeypatch.setattr(atomic_write, "_lock", lock)
        write_whole(tmp_path / "page", "whole")
        assert len(made) == 2
        assert (tmp_path / "page").read_text() == "whole"
