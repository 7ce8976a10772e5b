from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from pplr_lightning.data import Sample
from pplr_lightning.gallery import embeddings as files
from pplr_lightning.gallery.embeddings import (
    items_table,
    read_embeddings,
    write_embeddings,
    write_parts,
)

from ..tiny import FINGERPRINT, vectors

SAMPLES = [Sample("a.jpg", 3, -1), Sample("b/c.jpg", -1, 0), Sample("ü [x].jpg", 0, 7)]


class TestFile:
    def test_gives_back_what_was_written(self, tmp_path):
        rows = vectors(3)
        write_embeddings(tmp_path / "new/e.parquet", SAMPLES, rows, FINGERPRINT)
        found = read_embeddings(tmp_path / "new/e.parquet")
        assert found.fingerprint == FINGERPRINT
        assert found.vectors.shape == (3, 16)
        assert np.array_equal(found.vectors[0:3], rows.numpy())
        assert found.items.to_pylist() == [
            {"path": "a.jpg", "person_id": 3, "camera_id": None},
            {"path": "b/c.jpg", "person_id": None, "camera_id": 0},
            {"path": "ü [x].jpg", "person_id": 0, "camera_id": 7},
        ]
        assert [path.name for path in (tmp_path / "new").iterdir()] == ["e.parquet"]

    def test_other_programs_read_it(self, tmp_path):
        write_embeddings(tmp_path / "e.parquet", SAMPLES, vectors(3), FINGERPRINT)
        schema = pq.read_schema(tmp_path / "e.parquet")
        assert schema.names == ["path", "person_id", "camera_id", "vector"]
        assert schema.field("vector").type == pa.list_(pa.float32(), 16)

    def test_is_read_a_row_group_at_a_time(self, tmp_path, monkeypatch):
        monkeypatch.setattr(files, "GROUP_BYTES", 16 * 4 * 4)  # 4 vectors
        rows = vectors(11)
        samples = [Sample(str(number), -1, -1) for number in range(11)]
        path = tmp_path / "e.parquet"
        write_embeddings(path, samples, rows, FINGERPRINT)
        assert pq.ParquetFile(path).num_row_groups == 3
        found = read_embeddings(path)
        for start, stop in ((0, 11), (3, 5), (4, 8), (10, 99), (11, 20)):
            assert np.array_equal(found.vectors[start:stop], rows.numpy()[start:stop])
        chunks = list(found.chunks())
        assert [len(chunk) for chunk in chunks] == [4, 4, 3]
        assert np.array_equal(np.concatenate(chunks), rows.numpy())

    def test_a_name_that_is_not_utf8(self, tmp_path):
        samples = [*SAMPLES, Sample("bad/caf\udce9.jpg", 0, -1)]
        with pytest.raises(ValueError, match=r"^'bad/caf\\udce9.jpg': the name is not UTF-8"):
            write_embeddings(tmp_path / "e.parquet", samples, vectors(4), FINGERPRINT)
        assert not list(tmp_path.iterdir())

    def test_of_no_image(self, tmp_path):
        write_embeddings(tmp_path / "e.parquet", [], torch.empty(0, 16), FINGERPRINT)
        assert read_embeddings(tmp_path / "e.parquet").vectors.shape == (0, 16)

    def test_an_error_leaves_what_was_there(self, tmp_path):
        path = tmp_path / "e.parquet"
        write_embeddings(path, SAMPLES, vectors(3), FINGERPRINT)
        before = path.read_bytes()

        def parts():
            yield items_table(SAMPLES), vectors(3).numpy()
            raise KeyError

        with pytest.raises(KeyError):
            write_parts(path, FINGERPRINT, 16, parts())
        assert path.read_bytes() == before
        assert list(tmp_path.iterdir()) == [path]

    def test_vectors_that_are_not_normalised(self, tmp_path):
        write_embeddings(tmp_path / "e.parquet", SAMPLES, 2 * vectors(3), FINGERPRINT)
        with pytest.raises(ValueError, match="must be L2-normalised, got a norm of 2"):
            list(read_embeddings(tmp_path / "e.parquet").chunks())


class TestBadFile:
    @pytest.fixture
    def path(self, tmp_path):
        return tmp_path / "e.parquet"

    def test_missing(self, path):
        with pytest.raises(FileNotFoundError, match=r"e.parquet: no such embeddings file; predict"):
            read_embeddings(path)

    def test_cut_off(self, path):
        write_embeddings(path, SAMPLES, vectors(3), FINGERPRINT)
        path.write_bytes(path.read_bytes()[:-100])
        with pytest.raises(ValueError, match=r"e.parquet: no whole parquet file \("):
            read_embeddings(path)

    @pytest.mark.parametrize(
        "table",
        [
            pa.table({"path": ["a"], "feature": [1.0]}),
            pa.table({"path": ["a"], "person_id": [1], "camera_id": [1], "vector": [[1.0]]}),
        ],
    )
    def test_wrong_columns(self, path, table):
        pq.write_table(table, path)
        with pytest.raises(ValueError, match=r"wrong columns; needs path .*, has path \(string\)"):
            read_embeddings(path)

    @pytest.mark.parametrize("what", [b"b/c.jpg", vectors(3).numpy().tobytes()[-9:], b"\x15"])
    def test_of_which_a_byte_was_changed(self, path, what):
        """Of a path, a vector or a page's head: none would be missed without a checksum."""
        write_embeddings(path, SAMPLES, vectors(3), FINGERPRINT)
        content = bytearray(path.read_bytes())
        content[content.index(what)] ^= 0x55
        path.write_bytes(content)
        with pytest.raises(ValueError, match=f"{path}: "):
            read_embeddings(path).vectors[0:]

    def test_of_which_the_first_byte_is_gone(self, path):
        write_embeddings(path, SAMPLES, vectors(3), FINGERPRINT)
        path.write_bytes(path.read_bytes()[1:])
        with pytest.raises(ValueError, match=f"{path}: no whole parquet file"):
            read_embeddings(path)

    def test_of_an_unknown_model(self, path):
        write_embeddings(path, SAMPLES, vectors(3), FINGERPRINT)
        pq.write_table(pq.read_table(path).replace_schema_metadata(None), path)
        with pytest.raises(ValueError, match="does not say which model its vectors are of"):
            read_embeddings(path)
