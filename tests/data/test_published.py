from __future__ import annotations

import re
import warnings

import pytest

from pplr_lightning.data import (
    CUHK03,
    MSMT17,
    DukeMTMCreID,
    Market1501,
    OccludedDuke,
    PersonX,
    Sample,
    Splits,
    VeRi776,
)
from pplr_lightning.data.published import PublishedDataset

READERS = [Market1501, MSMT17, VeRi776, DukeMTMCreID, OccludedDuke, CUHK03, PersonX]


class Tiny(PublishedDataset):
    name = "Tiny"
    published = ((2, 1, 1), (3, 1, 1))

    def _read(self):
        sample = Sample("1.png", 1, 1)
        return Splits([sample] * int(self.root.name), [sample], [sample])


@pytest.mark.parametrize("reader", READERS)
def test_constructor_touches_no_file(reader):
    reader("/nowhere/at/all")


@pytest.mark.parametrize("reader", READERS)
def test_missing_folder(reader):
    """One line: what was looked for, what belongs there, where to get it, terms, the option."""
    with pytest.raises(FileNotFoundError) as caught:
        reader("nowhere").load()
    message = str(caught.value)
    assert re.match(r"nowhere/\S+: no such folder; ", message)
    assert reader.name in message
    assert "https://" in message
    assert f"; licence: {reader.licence};" in message
    assert "data.dataset.init_args.root" in message
    assert "\n" not in message


@pytest.mark.parametrize("reader", [DukeMTMCreID, OccludedDuke])
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
