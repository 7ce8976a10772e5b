from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from pplr_lightning.data import Sample
from pplr_lightning.gallery import embedding_parts
from pplr_lightning.gallery.embedding_parts import EmbeddingParts, remove_joined
from pplr_lightning.gallery.embeddings import read_embeddings

from ..tiny import FINGERPRINT, vectors

SAMPLES = [Sample(f"{number}.jpg", number, -1) for number in range(10)]
ROWS = vectors(10).numpy()


@pytest.fixture
def start(tmp_path):
    def call(*, samples=SAMPLES, fingerprint=FINGERPRINT, block_size=4, precision="32-true"):
        path = tmp_path / "new/e.parquet"
        return EmbeddingParts(
            path, samples, fingerprint, block_size=block_size, precision=precision
        )

    return call


def write(parts, *blocks):
    for block in blocks:
        indices = np.arange(block * 4, min(block * 4 + 4, 10))
        parts.write(indices, ROWS[indices])


def test_goes_on_and_joins_in_order(start, tmp_path):
    parts = start()
    assert parts.left() == [0, 1, 2]
    write(parts, 2, 0)
    (parts.folder / "000000001.part").write_bytes(b"cut off")  # of a run killed in writing
    again = start()
    assert again.left() == [1]
    write(again, 1)
    assert again.merge() == []
    found = read_embeddings(tmp_path / "new/e.parquet")
    assert found.items["path"].to_pylist() == [sample.path for sample in SAMPLES]
    assert np.array_equal(found.vectors[0:10], ROWS)
    assert found.fingerprint == FINGERPRINT
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["e.parquet"]


def test_images_left_out(start, tmp_path):
    parts = start()
    write(parts, 0, 2)
    parts.write(np.array([-1 - 4, 5, 6, -1 - 7]), ROWS[4:8])
    assert parts.left() == []
    assert parts.merge() == ["4.jpg", "7.jpg"]
    found = read_embeddings(tmp_path / "new/e.parquet")
    kept = [0, 1, 2, 3, 5, 6, 8, 9]
    assert found.items["person_id"].to_pylist() == kept
    assert np.array_equal(found.vectors[0:8], ROWS[kept])


def test_vectors_that_are_not_finite(start):
    rows = ROWS[:4].copy()
    rows[2, 0] = np.nan
    with pytest.raises(ValueError, match="vectors must be finite, got NaN or Inf in 1 of 4 rows"):
        start().write(np.arange(4), rows)
    assert start().left() == [0, 1, 2]
    start().write(np.array([0, 1, -1 - 2, 3]), rows)  # that of an image that is left out


def test_one_process_writes(start):
    first, second = start(), start()
    first.lock()
    with pytest.raises(ValueError, match=r"e.parquet: another process is writing it: wait for"):
        second.lock()
    first.unlock()
    second.lock()


def test_a_name_that_is_not_utf8(start, tmp_path):
    with pytest.raises(ValueError, match=r"'caf\\udce9.jpg': the name is not UTF-8, .* rename"):
        start(samples=[*SAMPLES, Sample("caf\udce9.jpg", 0, -1)])
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("other", "message"),
    [
        ({"samples": SAMPLES[:9]}, "of a run with other images: remove that folder"),
        ({"block_size": 5}, r"another batch size \(4, here 5\)"),
        ({"precision": "bf16-mixed"}, r"another precision \(32-true, here bf16-mixed\): remove"),
        (
            {"fingerprint": replace(FINGERPRINT, features="parts")},
            r"other features \(global, here parts\)",
        ),
        ({"fingerprint": replace(FINGERPRINT, weights="f")}, r"another model \(weights 0123"),
    ],
)
def test_parts_of_another_run(start, other, message):
    start()
    with pytest.raises(ValueError, match=message):
        start(**other)


def test_writes_through_no_link(start, tmp_path):
    (tmp_path / "new").mkdir()
    (tmp_path / "precious").mkdir()
    (tmp_path / "new/e.parquet.parts").symlink_to(tmp_path / "precious")
    with pytest.raises(ValueError, match=r"e\.parquet\.parts: is a link; remove it"):
        start()
    assert not list((tmp_path / "precious").iterdir())


@pytest.mark.parametrize("text", ["", "no JSON", "[]", "{}", '{"fingerprint": 5}'])
def test_a_damaged_record_is_named(start, text):
    (start().folder / "run.json").write_text(text)
    with pytest.raises(ValueError, match=r"run\.json: damaged .*; remove that folder"):
        start()


def test_a_damaged_part_is_computed_again(start, tmp_path):
    parts = start()
    write(parts, 0, 1, 2)
    (parts.folder / "000000001.parquet").write_bytes(b"PAR1 damaged")
    with pytest.raises(ValueError, match=r"000000001\.parquet: was damaged .* start again"):
        parts.merge()
    assert not (tmp_path / "new/e.parquet").exists()
    assert start().left() == [1]
    write(parts, 1)
    assert parts.merge() == []
    np.testing.assert_array_equal(read_embeddings(tmp_path / "new/e.parquet").vectors[:], ROWS)


def test_parts_of_nobody_are_not_taken_for_done(start):
    """Where the record is gone: nobody knows what they are of."""
    parts = start()
    write(parts, 0, 1)
    (parts.folder / "run.json").unlink()
    assert start(fingerprint=replace(FINGERPRINT, weights="f")).left() == [0, 1, 2]


class TestLeftWhenAllWasJoined:
    @pytest.fixture
    def joined(self, start, monkeypatch):
        parts = start()
        write(parts, 0, 1, 2)
        with monkeypatch.context() as patch:
            patch.setattr(embedding_parts, "_remove", lambda _: None)
            parts.merge()
        return parts

    @pytest.mark.parametrize("gone", [[], ["000000000.parquet"], ["00000000?.parquet", "run.json"]])
    def test_is_removed(self, joined, gone):
        for name in gone:
            for path in joined.folder.glob(name):
                path.unlink()
        remove_joined(joined.path)
        assert [path.name for path in joined.path.parent.iterdir()] == ["e.parquet"]

    def test_not_those_of_another_model(self, joined, start):
        for path in joined.folder.iterdir():
            path.unlink()
        start(fingerprint=replace(FINGERPRINT, weights="f"))
        remove_joined(joined.path)
        assert (joined.folder / "run.json").is_file()

    def test_not_what_is_no_folder_of_parts(self, joined):
        (joined.folder / "run.json").unlink()
        (joined.folder / "thesis.txt").touch()
        remove_joined(joined.path)
        assert (joined.folder / "thesis.txt").is_file()
