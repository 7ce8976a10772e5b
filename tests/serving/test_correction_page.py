from __future__ import annotations

import re
from types import SimpleNamespace

import pytest
import torch
from PIL import Image

from pplr_lightning.labelers import Space
from pplr_lightning.labelers.assignment import Assignment
from pplr_lightning.serving import corrections
from pplr_lightning.serving.corrections import Corrections

pytest.importorskip("gradio")
from starlette.testclient import TestClient

from pplr_lightning.serving.app import build_app
from pplr_lightning.serving.correction_page import Desk, build_page

EVIL = "<b onclick=alert(1)>${1+1}{{7*7}}.png"


@pytest.fixture
def desk(tmp_path):
    """Three clusters of people at 0, 30 and 90 degrees, and one image alone."""
    degrees = torch.tensor([0.0, 4, 8, 40, 30, 34, 38, 86, 90, 94, 60]).deg2rad()
    classes = torch.tensor([0, 0, 0, 0, 1, 1, 1, 2, 2, 2, -1])
    names = [EVIL, *(f"{number}.png" for number in range(1, 11))]
    for name in names[:9]:  # the other files are gone
        Image.new("RGB", (8, 16)).save(tmp_path / name)
    space = Space.of(torch.stack([degrees.cos(), degrees.sin()], dim=1))
    assignment = Assignment.of(space, classes, root=tmp_path, names=names)
    return Desk(Corrections(assignment, tmp_path / "out.parquet"))


def click(look, *images):
    listed = look.view.images if images[0] in look.view.images else look.view.beside
    places = [listed.index(image) for image in images]
    return SimpleNamespace(_data={"look": look.token, "places": places})


def told(desk):
    pairs = desk.corrections.pairs()
    return pairs.must_link.tolist(), pairs.cannot_link.tolist(), pairs.dropped.nonzero().tolist()


def test_the_most_doubtful_cluster_comes_first(desk):
    look, said, within, beside = desk.start()
    assert look.view.cluster == 0
    assert look.view.images[-1] != look.view.images[0]
    assert "Cluster 1 of 3 in order of doubt, images: 4. Answers in" in said
    assert "out.parquet: 0." in said
    assert within.count('class="hit"') == 4
    assert within.count("data:image/jpeg;base64") == 4
    assert beside.count("of 3") == 2
    assert "alone" in beside
    assert "file cannot be read" in beside
    assert "<b onclick" not in within
    assert "&lt;b onclick=alert(1)&gt;${1+1}{{7*7}}.png" in within


def test_split_and_take_back(desk):
    look = desk.start()[0]
    look, said = desk.choose_within(look, click(look, 3))
    assert said.startswith('<p class="said status" role="status">1 chosen in the cluster, 0 beside')
    found, said, within, _ = desk.split(look)
    assert found.view.cluster == 0
    assert {*found.view.images} == {0, 1, 2}
    assert "out.parquet: 1." in said
    assert within.count('class="hit"') == 3
    must, cannot, _ = told(desk)
    assert len(must) == 2
    assert [pair[1] for pair in cannot] == [3]
    found = desk.undo(found)[0]
    assert len(found.view.images) == 4
    assert told(desk) == ([], [], [])
    assert "there is no answer to take back" in desk.undo(found)[1]


def test_merge_stays_with_the_cluster_and_none_goes_on(desk):
    look = desk.start()[0]
    other = next(one for one in look.view.beside if one in (4, 5, 6))
    look, _ = desk.choose_beside(look, click(look, other))
    found, *_ = desk.merge(look)
    assert found.view.cluster == 0
    assert found.view.size == 7
    must, cannot, _ = told(desk)
    assert must == [[look.view.images[0], other]]
    assert len(cannot) == 2
    found, said, *_ = desk.merge(desk.forward(found)[0])  # nothing is chosen
    assert found.view.cluster == 0
    assert "out.parquet: 2." in said


def test_images_are_left_out(desk):
    look = desk.start()[0]
    look, _ = desk.choose_within(look, click(look, 1, 3))
    look, _ = desk.choose_beside(look, click(look, 10))
    found = desk.drop(look)[0]
    assert {*found.view.images} == {0, 2}
    assert 10 not in found.view.beside
    assert told(desk)[2] == [[1], [3], [10]]


def test_a_cluster_of_which_nothing_is_left_is_gone_over(desk):
    look = desk.start()[0]
    found = desk.drop(desk.choose_within(look, click(look, 0, 1, 2, 3))[0])[0]
    assert found.view.cluster != 0
    seen = [found.view.cluster]
    for step in (desk.forward, desk.forward, desk.back):
        found = step(found)[0]
        seen.append(found.view.cluster)
    assert seen[0] == seen[2] != seen[1] == seen[3]
    assert {*seen} == {1, 2}
    for _ in range(2):
        found = desk.drop(desk.choose_within(found, click(found, *found.view.images))[0])[0]
    assert found is None
    assert "No cluster is left" in desk.start()[1]
    assert desk.merge(None)[0] is None
    assert desk.undo(None)[0].view.size == 3
    desk.corrections.file.unlink()
    assert 'role="alert">' in desk.undo(None)[1]


def test_nothing_chosen_is_told_and_changes_nothing(desk):
    look = desk.start()[0]
    for act, words in ((desk.split, "choose the images of other people"), (desk.drop, "leave out")):
        found, said, *_ = act(look)
        assert found == look
        assert 'role="alert"' in said
        assert words in said
    assert not desk.corrections.file.exists()


def test_a_contradiction_is_told(desk):
    look = desk.start()[0]
    chosen = desk.choose_beside(look, click(look, look.view.beside[0]))[0]
    desk.merge(chosen)
    _, said, *_ = desk.merge(look)  # of the old look: none of them
    assert "this contradicts an earlier answer; take that back first" in said
    assert desk.corrections.answers == 1


@pytest.mark.parametrize(
    "data",
    [
        {"look": "0", "places": [0]},
        *({"look": "1", "places": places} for places in ([99], [-1], ["0"], [True], [0.0], None)),
        {"places": [0]},
        None,
        [0],
    ],
)
def test_clicks_of_another_look_or_nonsense(desk, data):
    look = desk.start()[0]
    assert look.token == "1"
    event = SimpleNamespace(_data=data)
    for choose in (desk.choose_within, desk.choose_beside):
        assert not isinstance(choose(look, event)[0], type(look))
        assert not isinstance(choose(None, event)[0], type(look))


def test_a_full_disk_is_told(desk, monkeypatch):
    def fail(*_):
        raise OSError(28, "No space left on device")

    look = desk.start()[0]
    look = desk.choose_within(look, click(look, 3))[0]
    with monkeypatch.context() as patch:
        patch.setattr(corrections.pq, "write_table", fail)
        found, said, *_ = desk.split(look)
    assert found == look
    assert "out.parquet: cannot be written (No space left on device)" in said
    assert len(desk.split(look)[0].view.images) == 3


def test_requests_reach_it(desk, tmp_path, monkeypatch):
    """As a browser sends them: a page's visit, a click and a button."""
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path / "uploads"))
    client = TestClient(build_app(build_page(desk.corrections)), base_url="http://localhost:7860")
    config = client.get("/config").json()
    labels = {one["id"]: one["props"].get("value") for one in config["components"]}
    of = {labels.get(one["targets"][0][0]): one["id"] for one in config["dependencies"]}

    def ask(number, *given, event=None):
        body = {"fn_index": number, "data": given, "session_hash": "a", "event_data": event}
        return client.post("/gradio_api/run/predict", json=body).json()["data"]

    within = ask(0)[2]
    token = re.search(r'data-look="(\d+)"', within)[1]
    assert "2 chosen" in ask(1, None, event={"look": token, "places": [1, 3]})[1]
    assert "images: 2." in ask(of["Split off the chosen: not this person"], None)[1]
    assert desk.corrections.answers == 1
    assert "Cluster 2 of 3" in ask(of["Next"], None)[1]


def test_no_file_has_an_address(desk, tmp_path, monkeypatch):
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path / "uploads"))
    client = TestClient(build_app(build_page(desk.corrections)), base_url="http://localhost:7860")
    page = client.get("/").text
    assert "Look and correct" in page
    for name in ("1.png", "out.parquet"):
        (tmp_path / "out.parquet").touch()
        for path in (f"/gradio_api/file={tmp_path / name}", f"/file={tmp_path / name}"):
            assert client.get(path).status_code in (403, 404)
