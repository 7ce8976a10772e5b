from __future__ import annotations

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from pplr_lightning.functional import simplified_silhouette
from pplr_lightning.labelers import Space
from pplr_lightning.labelers.assignment import NEIGHBORS, Assignment

from ..tiny import vectors


@pytest.fixture
def written(tmp_path):
    features = vectors(40)
    classes = torch.arange(40) % 5 - 1
    names = [f"a/{number}.png" for number in range(40)]
    found = Assignment.of(Space.of(features), classes, root=tmp_path, names=names)
    found.write(tmp_path / "candidate1.parquet")
    return features, found, tmp_path / "candidate1.parquet"


def test_is_read_as_written(written, tmp_path):
    features, found, path = written
    again = Assignment.read(path)
    assert again.root == tmp_path
    assert list(again.names) == list(found.names)
    assert torch.equal(again.classes, found.classes)
    assert torch.equal(again.silhouettes, simplified_silhouette(features, found.classes))
    assert torch.equal(again.neighbors, found.neighbors)
    cosines = (features @ features.T).fill_diagonal_(-2)
    assert torch.equal(found.neighbors, cosines.argsort(descending=True)[:, :NEIGHBORS])


def test_an_image_is_not_its_own_neighbour_behind_duplicates():
    features = torch.eye(2)[[0] * 35 + [1] * 2]
    found = Assignment.of(Space.of(features), torch.tensor([0] * 35 + [1] * 2))
    assert found.neighbors.shape == (37, NEIGHBORS)
    assert not (found.neighbors == torch.arange(37)[:, None]).any()
    assert found.neighbors[35, 0] == 36


@pytest.mark.parametrize(
    ("column", "values", "message"),
    [
        ("path", ["../x.png", *"bcd"], r"the name '../x.png' leads out of the folder"),
        ("path", ["a", "/etc/x.png", *"cd"], r"'/etc/x.png' leads out"),
        ("path", ["a/../../x", *"bcd"], r"leads out"),
        ("path", ["", *"bcd"], r"leads out"),
        ("path", ["a", "a", *"cd"], r"a name is there twice"),
        ("class", [0, 0, 2, 2], r"classes are not 0 to K - 1"),
        ("class", [-2, 0, 1, 1], r"classes are not 0 to K - 1"),
        ("class", [-1, -1, -1, -1], r"classes are not 0 to K - 1"),
        ("class", [None, 0, 1, 1], r"not written by `labels`"),
        ("silhouette", [0.0, float("nan"), 0.0, 0.0], r"silhouette is not finite"),
        ("neighbors", [[4], [0], [0], [0]], r"neighbors are not of 0 to 3"),
        ("neighbors", [[-1], [0], [0], [0]], r"neighbors are not of 0 to 3"),
        ("neighbors", [[1], [0, 2], [0], [0]], r"not written by `labels`"),
        ("neighbors", [[1], [0, 2], [], [0]], r"not written by `labels`"),
        ("neighbors", [[1], [None], [0], [0]], r"not written by `labels`"),
        ("neighbors", [[1], None, [0], [0]], r"not written by `labels`"),
        ("neighbors", [1, 0, 3, 2], r"not written by `labels`"),
        ("other", [0, 0, 0, 0], None),
    ],
)
def test_what_labels_did_not_write(column, values, message, tmp_path):
    columns = {
        "path": list("abcd"), "class": [0, 0, 1, 1], "silhouette": [0.0] * 4,
        "neighbors": [[1], [0], [3], [2]],
    }  # fmt: skip
    path = tmp_path / "candidate1.parquet"
    pq.write_table(pa.table(columns | {column: values}, metadata={"root": "x"}), path)
    if message is None:
        assert Assignment.read(path).names == list("abcd")
        return
    with pytest.raises(ValueError, match=message):
        Assignment.read(path)


def test_no_such_file(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"candidate9.parquet: no such file; `labels`"):
        Assignment.read(tmp_path / "candidate9.parquet")
    (tmp_path / "a.parquet").write_text("x")
    with pytest.raises(ValueError, match=r"a.parquet: not written by `labels`"):
        Assignment.read(tmp_path / "a.parquet")
    pq.write_table(pa.table({"path": ["a"]}), tmp_path / "b.parquet")
    with pytest.raises(ValueError, match=r"b.parquet: not written by `labels`"):
        Assignment.read(tmp_path / "b.parquet")
