from __future__ import annotations

import pytest
import torch

from pplr_lightning import functional as F
from pplr_lightning.data import Sample
from pplr_lightning.labelers import DBSCAN, CameraDBSCAN, Space, label_grid
from pplr_lightning.labelers.grid import K1, TRACKLETS_K1, choose

from ..processes import launch
from .people import features, shared_space

ALL_AUTO = dict.fromkeys(("k1", "k2", "eps", "min_samples"), "auto")


def _label(rank, broken=False):
    """Labels by numbers, then by what is chosen from three k1."""
    space = shared_space(rank, broken=broken)
    labeler = DBSCAN(k1="auto", k2="auto", eps=0.5, min_samples=4)
    with space.share:
        return DBSCAN(k1=12, k2=6).label(space), labeler.label(space), labeler.setting


def test_finds_well_separated_groups():
    classes = DBSCAN(k1=8, k2=3).label(Space.of(*features()))
    assert torch.equal(classes, torch.arange(5).repeat_interleave(8))


@pytest.mark.filterwarnings("error")
def test_warns_of_a_k1_that_is_large_for_the_images():
    images = [Sample(f"{number}.jpg", -1, -1) for number in range(660)]
    message = r"labeler.k1=30 suits people of about 30 images each, of whom 660 images show 22"
    with pytest.warns(UserWarning, match=message):
        DBSCAN().check(images)
    with pytest.warns(UserWarning, match=r"labeler.min_samples=40 suits people of about 40"):
        DBSCAN(k1=10, min_samples=40).check(images)
    DBSCAN(k1=10).check(images)
    DBSCAN(k1="auto", k2="auto", eps="auto", min_samples="auto").check(images)


def test_is_the_functions_in_their_order():
    whole, _ = features(spread=0.4)
    classes = DBSCAN(k1=8, k2=3, eps=0.6, min_samples=3).label(Space.of(whole))
    distance = F.jaccard_distance(whole, k1=8, k2=3)
    assert torch.equal(classes, F.dbscan(distance, eps=0.6, min_samples=3))
    assert (classes < 0).any()


@pytest.mark.parametrize("world_size", [2, 4])
def test_does_not_depend_on_the_number_of_ranks(world_size, tmp_path):
    *alone, setting = _label(0)
    for classes in alone:
        assert classes.max() > 10
        assert (classes < 0).any()
    for *found, chosen in launch(_label, world_size, tmp_path):
        assert chosen == setting
        assert all(map(torch.equal, found, alone))


def test_eps_is_chosen_once():
    """By the distances of the first epoch, whatever eps is; a run that goes on has it."""
    (first, _), (later, _) = features(spread=0.4), features(spread=0.1)
    labeler = DBSCAN(k1=8, k2=3, eps=1.0, min_samples=3, rho=0.1)
    classes = labeler.label(Space.of(first))
    distance = F.jaccard_distance(first, k1=8, k2=3)
    eps = F.choose_eps(distance, rho=0.1)
    assert labeler.state_dict()["chosen"] == labeler.chosen_options()["eps"] == eps
    assert torch.equal(classes, F.dbscan(distance, eps=eps, min_samples=3))
    other = DBSCAN(k1=8, k2=3, min_samples=3, rho=0.1)
    other.load_state_dict(labeler.state_dict())
    expected = F.dbscan(F.jaccard_distance(later, k1=8, k2=3), eps=eps, min_samples=3)
    for one in (labeler, other):
        assert torch.equal(one.label(Space.of(later)), expected)
    cameras = torch.arange(40) % 3
    by_cameras = CameraDBSCAN(k1_intra=3, k1_inter=7, rho=0.1)
    by_cameras.label(Space.of(first, cameras=cameras))
    assert 0 < by_cameras.chosen < 1


def test_fewer_images_than_neighbours():
    with pytest.raises(ValueError, match=r"labeler.k1=8 for 6 images"):
        DBSCAN(k1=8, k2=3).check([Sample("x.jpg", -1, -1)] * 6)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"k1": 0}, "labeler.k1 must be at least 1, got 0"),
        ({"k2": -1}, "labeler.k2 must be at least 1, got -1"),
        ({"min_samples": 0}, "labeler.min_samples must be at least 1, got 0"),
        ({"eps": 0}, r"labeler.eps=0: a Jaccard distance lies in \(0, 1\]"),
        ({"eps": 1.5}, "labeler.eps=1.5"),
        ({"rho": 0.0}, r"labeler.rho=0.0: must lie in \(0, 1\)"),
        ({"rho": 0.1, "k1": "auto"}, "labeler.rho=0.1 chooses eps by another rule than auto"),
        ({"k1": "auto", "eps": 2.0}, "labeler.eps=2.0: a Jaccard distance"),
        ({"k1": "auto", "k2": 31}, "no setting is left"),
        ({"images_per_person": 0.5}, "images_per_person=0.5: a person has one image or more"),
    ],
)
def test_bad_options(options, message):
    with pytest.raises(ValueError, match=message):
        DBSCAN(**options)


class TestAuto:
    def people(self, noise=0.3):
        """Nine images of each of 40 people, the same as on several ranks."""
        return features(clusters=40, each=9, spread=noise)[0]

    def test_is_the_choice_of_the_grid(self, caplog):
        caplog.set_level("INFO", logger="lightning.pytorch")
        whole, persons = self.people(), torch.arange(360) // 9
        space = Space.of(whole, persons=persons)
        labeler = DBSCAN(k1="auto", k2="auto", eps=0.5, min_samples=4)
        classes = labeler.label(space)
        grid = label_grid(Space.of(whole), k1=K1, eps=[0.5], min_samples=[4])
        assert len(grid) == 5
        assert labeler.setting == choose(grid).setting
        assert torch.equal(classes, choose(grid).classes)
        assert labeler.chosen_options() == labeler.setting._asdict()
        assert f"labeler auto: of 5 settings {labeler.setting}, which finds" in caplog.text
        assert set(space.stages.seconds) == {
            "extraction", "neighbors", "choice", "jaccard", "clustering"
        }  # fmt: skip

    def test_is_made_anew_but_of_many_images(self, monkeypatch):
        """Which a run that goes on has from its checkpoint."""
        clear, blurred = Space.of(self.people(0.05)), Space.of(self.people(0.4))
        options = {"k1": "auto", "k2": 1, "eps": 0.5, "min_samples": 2}
        labeler, chosen = DBSCAN(**options), []
        for space in (clear, blurred):
            labeler.label(space)
            chosen.append(labeler.setting)
        assert chosen[0] != chosen[1]
        monkeypatch.setattr("pplr_lightning.labelers.dbscan.CHOSEN_ANEW", 359)
        other = DBSCAN(**options)
        other.load_state_dict(labeler.state_dict())
        for one in (labeler, other):
            classes = one.label(clear)
            assert one.setting == chosen[1]
            assert torch.equal(classes, DBSCAN(**chosen[1]._asdict()).label(clear))
        numbers = DBSCAN()
        numbers.load_state_dict(labeler.state_dict())
        assert numbers.chosen_options() == {}

    def test_a_number_that_is_given_on_the_way_counts(self, monkeypatch):
        monkeypatch.setattr("pplr_lightning.labelers.dbscan.CHOSEN_ANEW", 359)
        space, first = Space.of(self.people(0.05)), DBSCAN(k1="auto", k2=1, eps=0.5, min_samples=2)
        first.label(space)
        other = DBSCAN(k1=first.setting.k1 + 1, k2="auto", eps=0.5, min_samples=2)
        other.load_state_dict(first.state_dict())
        other.label(space)
        assert other.setting.k1 == first.setting.k1 + 1

    def test_keeps_what_is_given(self):
        labeler = DBSCAN(k1=12, k2="auto", eps="auto", min_samples=3)
        labeler.label(Space.of(self.people()))
        assert (labeler.setting.k1, labeler.setting.k2, labeler.setting.min_samples) == (12, 2, 3)
        assert labeler.eps == "auto"  # as given, for the run's record

    def test_images_per_person_count(self):
        chosen = []
        for told in (None, 40.0):  # by which clusters of nine are too small
            labeler = DBSCAN(k1="auto", k2=1, eps=0.6, min_samples=2, images_per_person=told)
            labeler.label(Space.of(self.people(0.05)))
            chosen.append(labeler.setting)
        grid = label_grid(Space.of(self.people(0.05)), k2=[1], eps=[0.6], min_samples=[2],
                          images_per_person=40.0)  # fmt: skip
        assert chosen[1] == choose(grid).setting != chosen[0]

    def test_few_images(self):
        labeler = DBSCAN(k1="auto", k2="auto", eps=0.5, min_samples=2)
        with pytest.raises(ValueError, match=r"labeler.k1=3 for 2 images"):
            labeler.check([Sample("x.jpg", -1, -1)] * 2)
        labeler.label(Space.of(features(clusters=2, each=4)[0]))
        assert labeler.setting.k1 == 6

    def test_where_every_setting_is_in_doubt_it_warns_and_goes_on(self):
        labeler = DBSCAN(k1=6, k2="auto", eps="auto", min_samples=2)
        with pytest.warns(UserWarning, match=r"All are in doubt, this one for half of its") as told:
            classes = labeler.label(Space.of(features(clusters=40, each=4)[0]))
        assert "\n" not in str(told[0].message)
        assert classes.max() > 10

    def test_tracklets(self):
        """Settings count tracklets, of which a person has few; the rules count images."""
        frames = self.people(0.05)
        numbers = torch.arange(360) // 3
        space = Space.of(frames).of_tracklets(numbers)
        labeler = DBSCAN(k1="auto", k2="auto", eps=0.5, min_samples=2)
        classes = labeler.label(space)
        space = Space.of(frames).of_tracklets(numbers)
        grid = label_grid(space, k1=TRACKLETS_K1, eps=[0.5], min_samples=[2])
        assert labeler.setting == choose(grid).setting
        assert torch.equal(classes[numbers], choose(grid).classes)

    @pytest.mark.filterwarnings("error")  # of settings in doubt, which find no cluster
    def test_frames_that_are_not_to_be_kept_apart(self):
        whole = self.people(0.05)
        space = Space.of(whole, frames=torch.arange(360) // 9)  # a person's images: of one frame
        labeler = DBSCAN(k1=10, k2="auto", eps=0.5, min_samples="auto", cannot_link=False)
        assert int(labeler.label(space).max()) == 39
