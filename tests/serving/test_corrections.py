from __future__ import annotations

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from pplr_lightning.data.pairs import read_pairs
from pplr_lightning.labelers import Space
from pplr_lightning.labelers.assignment import Assignment
from pplr_lightning.serving import corrections as source
from pplr_lightning.serving.corrections import Corrections


@pytest.fixture
def assignment(tmp_path):
    """60 images of 12 people in clusters that are partly wrong, some in none."""
    generator = torch.Generator().manual_seed(0)
    persons = torch.arange(60) % 12
    features = torch.eye(16)[persons] + 0.3 * torch.randn(60, 16, generator=generator)
    classes = torch.where(torch.rand(60, generator=generator) < 0.2, (persons + 1) % 12, persons)
    classes[::7] = -1
    space = Space.of(torch.nn.functional.normalize(features, dim=1))
    names = [f"{number}.png" for number in range(60)]
    return Assignment.of(space, classes, root=tmp_path, names=names)


def everything(corrections):
    return [corrections.view(cluster) for cluster in range(len(corrections.order))]


def test_order_is_of_doubt(assignment, tmp_path):
    corrections = Corrections(assignment, tmp_path / "a.parquet")
    doubt = [
        float((1 - assignment.silhouettes[assignment.classes == cluster]).sum())
        for cluster in corrections.order
    ]
    assert doubt == sorted(doubt, reverse=True)
    assert corrections.clusters() == corrections.order


def test_what_is_beside_is_one_of_each_other_cluster_and_what_is_in_none(assignment, tmp_path):
    corrections = Corrections(assignment, tmp_path / "a.parquet")
    for view in everything(corrections):
        clusters = assignment.classes[list(view.beside)].tolist()
        known = [cluster for cluster in clusters if cluster >= 0]
        assert len({*known}) == len(known) > 3
        assert view.cluster not in known
        assert -1 in clusters
        assert {*view.images} == {*(assignment.classes == view.cluster).nonzero()[:, 0].tolist()}


def answer(corrections):
    """Gives an answer of each kind."""
    view = corrections.view(corrections.order[0])
    corrections.split(view, view.images[1:2])
    view = corrections.view(view.cluster)
    corrections.merge(view, view.beside[:3])
    corrections.drop(corrections.view(corrections.order[-1]).images[:1])


def test_each_answer_is_in_the_file_and_goes_on_from_it(assignment, tmp_path):
    file = tmp_path / "folder/a.parquet"
    corrections = Corrections(assignment, file)
    before = everything(corrections)
    answer(corrections)
    found = everything(corrections)
    assert found != before
    again = Corrections(assignment, file)
    assert everything(again) == found
    assert again.answers == 3
    read = read_pairs(file, tmp_path, assignment.names)
    for name in ("must_link", "cannot_link", "dropped"):
        assert torch.equal(getattr(read, name), getattr(again.pairs(), name))
    for left in (2, 1, 0):
        again.undo()
        assert again.answers == left
    assert everything(Corrections(assignment, file)) == before
    with pytest.raises(ValueError, match="no answer to take back"):
        again.undo()


def test_what_is_merged_is_looked_at_as_one(assignment, tmp_path):
    corrections = Corrections(assignment, tmp_path / "a.parquet")
    first, last = corrections.order[0], corrections.order[-1]
    view = corrections.view(last)
    chosen = next(one for one in view.beside if corrections.cluster_of(one) == first)
    alone = next(one for one in view.beside if corrections.cluster_of(one) < 0)
    size = view.size + corrections.view(first).size + 1
    corrections.merge(view, [chosen, alone])
    assert corrections.view(last) == corrections.view(first)
    assert corrections.view(last).size == size
    assert last not in corrections.clusters()
    assert not {*view.beside} & {*corrections.view(last).beside}


def test_of_many_images_the_doubtful_are_shown_and_told_of(assignment, tmp_path, monkeypatch):
    monkeypatch.setattr(source, "SHOWN", 4)
    corrections = Corrections(assignment, tmp_path / "a.parquet")
    view = next(one for one in everything(corrections) if one.size > 4)
    clear = assignment.silhouettes[list(view.images)]
    members = assignment.silhouettes[assignment.classes == view.cluster].sort().values
    assert torch.equal(clear, members[[-1, 0, 1, 2]])
    corrections.split(view, view.images[:1])  # the clearest is somebody else
    rows = [(row.one, row.other, row.same) for row in corrections.rows]
    names = [f"{image}.png" for image in view.images]
    assert rows == [
        (names[3], names[1], True),
        (names[3], names[2], True),
        (names[3], names[0], False),
    ]


def test_pairs_of_another_origin_stay(assignment, tmp_path):
    file = tmp_path / "own.parquet"
    rows = {"path_a": ["./0.png", "x.png"], "path_b": ["1.png", "1.png"], "same": [True, False]}
    pq.write_table(pa.table(rows), file)
    corrections = Corrections(assignment, file)
    answer(corrections)
    for _ in range(3):
        corrections.undo()
    with pytest.raises(ValueError, match="no answer to take back"):
        corrections.undo()
    found = pq.read_table(file).select(["path_a", "path_b", "same"]).to_pydict()
    assert found == {**rows, "path_a": ["0.png", "x.png"]}


def test_what_another_wrote_meanwhile_stays(assignment, tmp_path):
    file = tmp_path / "a.parquet"
    first, second = (Corrections(assignment, file) for _ in range(2))
    first.drop([0])
    first.drop([1])  # its own writing is no change
    kept = file.read_bytes()
    with pytest.raises(
        ValueError, match=r"a.parquet was changed meanwhile, .*start `correct` again"
    ):
        second.drop([2])
    assert file.read_bytes() == kept
    assert second.rows == []
    file.unlink()
    with pytest.raises(ValueError, match=r"a.parquet was changed meanwhile"):
        first.undo()
    assert first.answers == 2


def test_a_file_that_contradicts_itself_is_not_opened(assignment, tmp_path):
    rows = {
        "path_a": ["0.png", "x.png", "0.png"],  # over an image of another labelling
        "path_b": ["x.png", "1.png", "1.png"],
        "same": [True, True, False],
    }
    pq.write_table(pa.table(rows), tmp_path / "a.parquet")
    with pytest.raises(ValueError, match=r"a.parquet, row 3: 0.png and 1.png are said to be two"):
        Corrections(assignment, tmp_path / "a.parquet")


def test_files_that_cannot_be(assignment, tmp_path):
    with pytest.raises(ValueError, match=r"a.csv: answers are written as Parquet"):
        Corrections(assignment, tmp_path / "a.csv")
    pq.write_table(pa.table({"path": ["0.png"]}), tmp_path / "b.parquet")
    with pytest.raises(ValueError, match=r"b.parquet: has no column path_a"):
        Corrections(assignment, tmp_path / "b.parquet")
