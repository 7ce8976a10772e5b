from __future__ import annotations

import re
import warnings

import pytest
from PIL import Image

from pplr_lightning import data
from pplr_lightning.data import ImageFolder, MarketLayout
from pplr_lightning.data.datasets import (
    PublishedDataset,
    Sample,
    Splits,
    check_queries,
    file_numbers,
)

from .trees import plant, touch

READERS = [
    getattr(data, name)
    for name in data.__all__
    if isinstance(getattr(data, name), type)
    and issubclass(getattr(data, name), PublishedDataset)
    and name not in ("MarketLayout", "SyntheticReID")  # which nobody has published
]


class Tiny(PublishedDataset):
    name = "Tiny"
    published = ((2, 1, 1), (3, 1, 1))

    def _read(self):
        sample = Sample("1.png", 1, 1)
        return Splits([sample] * int(self.root.name), [sample], [sample])


class TestDescribe:
    def test_counts(self):
        train = [Sample("1.png", 7, 0), Sample("2.png", 7, 1), Sample("3.png", 9, 1)]
        splits = Splits(train, train[:1], [*train, Sample("4.png", -1, 0)])
        assert splits.describe() == (
            "train: 3 images, 2 identities, 2 cameras; query: 1 images, 1 identities, 1 cameras; "
            "gallery: 4 images, 2 identities, 2 cameras"
        )

    def test_unknown_ids(self):
        splits = Splits([Sample("1.png", -1, -1)] * 1200, [], [])
        assert splits.describe() == "train: 1,200 images, unknown identities, unknown cameras"


class TestQueries:
    """Person 1 is seen by another camera, 2 by the query's own alone, 3 by none; -1 is junk."""

    @pytest.fixture
    def folder(self, tmp_path):
        query = ["0001_c1.jpg", "0002_c1.jpg", "0003_c1.jpg", "-1_c1.jpg"]
        test = ["0001_c2.jpg", "0002_c1_2.jpg", "-1_c2.jpg"]
        folders = {"bounding_box_train": ["0009_c1.jpg"], "query": query, "bounding_box_test": test}
        plant(tmp_path, folders)
        for number, path in enumerate(sorted(tmp_path.rglob("*.jpg"))):
            Image.new("RGB", (8, 16), (number, 0, 0)).save(path)
        return tmp_path

    def test_without_a_match_are_counted_in_a_warning(self, folder):
        expected = r"3 of 4 queries have no other gallery image .* camera, .*query/-1_c1.jpg"
        with pytest.warns(UserWarning, match=expected):
            check_queries(MarketLayout(folder).load())
        with pytest.warns(UserWarning, match=r"2 of 4 queries have no .* identity, .*query/-1_c1"):
            check_queries(MarketLayout(folder).load(), same_camera=True)

    def test_none_with_a_match(self, folder):
        splits = MarketLayout(folder).load()
        splits = splits._replace(query=[s for s in splits.query if s.person_id == 2])
        expected = r"1 of 1 queries .* nothing can be .*, or set evaluation.same_camera to true"
        with pytest.raises(ValueError, match=expected):
            check_queries(splits)
        check_queries(splits, same_camera=True)

    def test_there_are_none_without_in_the_drawn_set(self, drawn, recwarn):
        check_queries(MarketLayout(drawn).load())
        assert not recwarn

    def test_their_own_file_is_no_match(self, folder):
        query, test = folder / "query", folder / "bounding_box_test"
        (test / "0003_c4.jpg").symlink_to(query / "0003_c1.jpg")
        splits = MarketLayout(folder).load()
        assert [len(found) for found in splits.matches()] == [0, 1, 0, 0]  # of -1, 1, 2, 3
        (test / "-1_c2.jpg").unlink()
        one = ImageFolder(
            folder / "bounding_box_train", query=test, gallery=test, pattern=r"(?P<person>\d+)"
        )
        with pytest.raises(ValueError, match="3 of 3 queries have no other gallery image of their"):
            check_queries(one.load())

    def test_copies_are_told_of(self, folder):
        copy = folder / "bounding_box_test/0001_c3.jpg"
        copy.write_bytes((folder / "query/0001_c1.jpg").read_bytes())
        expected = f"1 matches in .* copies of the query's file.* is {copy} of .*query/0001_c1.jpg"
        with pytest.warns(UserWarning, match=expected):
            check_queries(MarketLayout(folder).load())


def test_one_file_has_one_number(tmp_path):
    touch(tmp_path / "a.png", tmp_path / "b.png")
    (tmp_path / "c.png").symlink_to(tmp_path / "a.png")
    names = ["b.png", "a.png", "./b.png", "c.png"]
    assert file_numbers([Sample(f"{tmp_path}/{name}", 1, 1) for name in names]) == [0, 1, 0, 1]


def test_sample_is_plain():
    assert Sample("a.png", 1, 2) == ("a.png", 1, 2, -1, -1, -1)


@pytest.mark.parametrize("reader", READERS)
def test_constructor_touches_no_file(reader):
    reader("/nowhere/at/all")


@pytest.mark.parametrize("reader", READERS)
def test_missing_folder(reader):
    """One line: what was looked for, what belongs there, where to get it, terms, the option."""
    with pytest.raises(FileNotFoundError) as caught:
        reader("nowhere").load()
    message = str(caught.value)
    assert re.match(r"nowhere/[\w/.-]+: no such (folder|file); ", message)
    assert reader.name in message
    assert "https://" in message
    assert f"; licence: {reader.licence};" in message
    assert "data.dataset.init_args.root" in message
    assert "\n" not in message


@pytest.mark.parametrize("reader", [reader for reader in READERS if "Duke" in reader.name])
def test_what_was_withdrawn_says_so(reader):
    assert "2019" in reader.withdrawn
    assert "no official download" in reader.source
    assert "ithdrawn" in reader.__doc__


@pytest.mark.parametrize("images", [2, 3])
def test_counts_as_published(images, caplog):
    caplog.set_level("INFO", logger="lightning.pytorch")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        Tiny(str(images)).load()
    (message,) = caplog.messages
    assert message.startswith(f"{images} holds {images} + 1 + 1 images (train, query, gallery); ")
    assert message.endswith("Tiny as published has 2 + 1 + 1 or 3 + 1 + 1")


def test_other_counts():
    expected = r"1234 holds 1,234 \+ 1 \+ 1 images .*; Tiny as published has 2 \+ 1 \+ 1 or 3 \+"
    with pytest.warns(UserWarning, match=expected):
        Tiny("1234").load()


def test_withdrawn(monkeypatch):
    monkeypatch.setattr(Tiny, "withdrawn", "taken down")
    with pytest.warns(UserWarning, match="Tiny: taken down"):
        Tiny("2").load()
