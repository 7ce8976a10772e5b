from __future__ import annotations

from contextlib import contextmanager
from copy import copy

import pytest
import torch
import torch.nn.functional as nnf

from pplr_lightning import functional as F
from pplr_lightning.functional.sharding import Share
from pplr_lightning.labelers import DBSCAN, CameraDBSCAN, SelfPaced, Space
from pplr_lightning.labelers.stages import Stages

from ..processes import launch
from .people import features, shared_space


def _everything(rank, broken=False):
    """What a space gives, on this rank."""
    space = shared_space(rank, broken=broken)
    with space.share:
        classes = torch.arange(space.total) % 7
        distance = space.jaccard(k1=12, k2=6).toarray()
        neighbors = space.share.gather(space.neighbors(5))
        return (
            neighbors,
            torch.from_numpy(distance),
            *space.centroids(classes),
            space.means(classes),
        )


def _everything_broken(rank):
    return _everything(rank, broken=True)


def test_is_the_functions():
    whole, parts = features(spread=0.4)
    space = Space.of(whole, parts)
    expected = F.jaccard_distance(whole, k1=8, k2=3, max_distance=0.5)
    assert (space.jaccard(k1=8, k2=3, max_distance=0.5) != expected).nnz == 0
    assert torch.equal(space.neighbors(4), F.nearest_neighbors(whole, 4))
    classes = torch.arange(40) % 3
    centroids, part_centroids = space.centroids(classes)
    assert torch.equal(centroids, F.cluster_centroids(whole, classes))
    assert torch.equal(part_centroids[..., 1], F.cluster_centroids(parts[..., 1], classes))


def test_nothing_is_embedded_before_it_is_asked_for():
    calls = []
    space = Space(lambda: calls.append(0) or features(), share=Share(40))
    assert space.total == 40
    assert calls == []
    space.features, space.part_features  # noqa: B018
    assert calls == [0]


def test_neighbours_are_searched_once():
    told = []

    @contextmanager
    def show(name, count):
        told.append(name)
        yield lambda: None

    stages = Stages(show)
    space = Space(features, share=Share(40), stages=stages)
    space.jaccard(k1=8, k2=3)
    space.neighbors(6)
    assert told == ["extraction", "neighbors", "jaccard"]
    assert list(stages.seconds) == told
    more = space.neighbors(9)
    assert told[3:] == ["neighbors"]
    assert torch.equal(more[:, :8], space.neighbors(8))


def test_neighbours_that_a_method_will_ask_for_are_found_in_the_first_search():
    wanted = []

    class Watched(Space):
        def search(self, features, k):
            wanted.append(k)
            return super().search(features, k)

    space = Watched(features, share=Share(40), num_neighbors=12)
    assert torch.equal(space.neighbors(6), Space.of(*features()).neighbors(6))
    assert space.neighbors(12).shape == (40, 12)
    assert wanted == [12]


@pytest.mark.parametrize("world_size", [2, 4])
def test_does_not_depend_on_the_number_of_ranks(world_size, tmp_path):
    alone = _everything(0)
    for found in launch(_everything, world_size, tmp_path):
        assert torch.equal(found[0], alone[0])
        assert torch.equal(found[1], alone[1])
        for means, expected in zip(found[2:], alone[2:], strict=True):
            torch.testing.assert_close(means, expected, rtol=1e-6, atol=1e-7)


def test_a_bad_feature_on_one_rank_stops_all(tmp_path):
    first, second = launch(_everything_broken, 2, tmp_path)
    assert second.startswith("ValueError: features must be finite, got NaN or Inf in 1 of 50")
    assert first == f"ValueError: rank 1 stopped with {second}"


def _tracklets(rank, broken=False):
    """What a space of 90 tracklets gives, whose frames lie on several ranks, on this one."""
    frames = shared_space(rank, broken=broken, frames=torch.arange(360) // 5)
    with frames.share:
        parts = frames.split_tracklets(torch.arange(360) % 90, 1.8, -torch.arange(360))
        space = frames.of_tracklets(torch.arange(360) % 90)
        classes = DBSCAN(k1=12, k2=4, min_samples=2, eps=0.6).label(space)
        assert F.count_linked(classes, space.cannot_link) == 0
        free = DBSCAN(k1=12, k2=4, min_samples=2, eps=0.6, cannot_link=False).label(space)
        assert F.count_linked(free, space.cannot_link) > 0
        gathered = space.share.gather(torch.cat([space.features, space.part_features[..., 0]]))
        agreement = space.share.gather(space.search(space.part_features[..., 1], 5))
        centroids = space.centroids(classes)[0]
        return classes, centroids, agreement, parts, len(gathered), space.total


def _tracklets_broken(rank):
    return _tracklets(rank, broken=True)


@pytest.mark.parametrize("world_size", [2, 4])
def test_tracklets_may_span_ranks(world_size, tmp_path):
    classes, centroids, *alone = _tracklets(0)
    assert classes.max() > 1
    assert 90 < alone[1].max() < 359
    for found in launch(_tracklets, world_size, tmp_path):
        assert torch.equal(found[0], classes)
        torch.testing.assert_close(found[1], centroids, rtol=1e-6, atol=1e-7)
        assert torch.equal(found[2], alone[0])
        assert torch.equal(found[3], alone[1])
        assert list(found[4:]) == alone[2:] == [180, 90]


def test_a_bad_frame_on_one_rank_stops_all(tmp_path):
    first, second = launch(_tracklets_broken, 2, tmp_path)
    assert second.startswith("ValueError: features must be finite, got NaN or Inf in 1 of 50")
    assert first == f"ValueError: rank 1 stopped with {second}"


def test_a_tracklet_is_the_mean_of_its_frames():
    whole, parts = features(spread=0.4)
    numbers = torch.arange(40) // 3
    persons = torch.arange(40) // 8
    frames = Space.of(whole, parts, cameras=torch.arange(40) % 3, persons=persons)
    frames.neighbors(4)
    space = frames.of_tracklets(numbers)
    assert space.total == 14
    torch.testing.assert_close(space.features[2], nnf.normalize(whole[6:9].mean(0), dim=0))
    torch.testing.assert_close(space.part_features[13, :, 1], parts[39, :, 1])
    assert space.cameras.tolist() == [0] * 14
    assert space.persons.tolist()[:4] == [0, 0, -1, 1]  # frames 6 and 7 are of 0, 8 is of 1
    assert torch.equal(space.neighbors(4), F.nearest_neighbors(space.features, 4))
    assert frames.neighbors(4).shape == (40, 4)
    assert space.cannot_link is None
    with pytest.raises(ValueError, match=r"tracklets must have shape \(40,\), got \(39,\)"):
        frames.of_tracklets(numbers[1:])


def test_what_was_seen_in_one_frame_cannot_be_linked():
    space = Space.of(torch.eye(7), frames=torch.tensor([5, 5, -1, 8, 9, 8, -1]))
    assert space.cannot_link.tolist() == [[0, 0], [1, 0], [3, 1], [5, 1]]  # 9 holds one alone
    numbers = torch.tensor([0, 1, 1, 1, 2, 2, 3])
    assert space.of_tracklets(numbers).cannot_link.tolist() == [[0, 0], [1, 0], [1, 1], [2, 1]]
    numbers = torch.tensor([0, 0, 1, 0, 1, 2, 3])  # two boxes of one tracklet in a frame
    assert space.of_tracklets(numbers).cannot_link.tolist() == [[0, 0], [0, 1], [2, 1]]


@pytest.mark.parametrize(
    "labeler",
    [
        DBSCAN(k1=8, k2=3, eps=0.6, min_samples=2),
        CameraDBSCAN(k1_intra=3, k1_inter=7, eps=0.6, min_samples=2),
        SelfPaced(k1=8, k2=3, eps=0.6, gap=0.1, min_samples=2),
    ],
    ids=lambda labeler: type(labeler).__name__,
)
def test_labelers_keep_apart_what_was_seen_in_one_frame(labeler):
    whole, _ = features()
    seen = {"cameras": torch.arange(40) % 2, "frames": torch.arange(40) // 3}
    space = Space.of(whole, **seen)
    assert F.count_linked(labeler.label(space), space.cannot_link) == 0
    free = copy(labeler)
    free.cannot_link = False
    assert F.count_linked(free.label(space), space.cannot_link) > 10


def test_frames_are_embedded_once_and_let_go():
    calls, told = [], []

    @contextmanager
    def show(name, count):
        told.append(name)
        yield lambda: None

    frames = Space(lambda: calls.append(0) or features(), share=Share(40), stages=Stages(show))
    space = frames.of_tracklets(torch.arange(40) // 4)
    assert (calls, space.total) == ([], 10)
    space.jaccard(k1=4, k2=2)
    assert calls == [0]
    assert told == ["extraction", "neighbors", "jaccard"]
    assert "_embedded" not in vars(frames)


def test_features_that_do_not_fit():
    whole, parts = features()
    with pytest.raises(ValueError, match="40 images and part features of 39"):
        Space.of(whole, parts[1:]).neighbors(3)
    with pytest.raises(ValueError, match="part_features must be L2-normalised"):
        Space.of(whole, 2 * parts).neighbors(3)
    with pytest.raises(ValueError, match="k must not exceed the number of images, got k=41"):
        Space.of(whole).neighbors(41)


def test_without_parts():
    centroids, part_centroids = Space.of(features()[0]).centroids(torch.arange(40) % 3)
    assert centroids.shape == (3, 16)
    assert part_centroids.shape == (3, 16, 0)


def test_means_keep_their_length():
    rows = features()[0]
    classes = torch.arange(40) % 4 - 1
    found = Space.of(rows).means(classes)
    torch.testing.assert_close(found, F.class_means(rows, classes, 3))
    assert (found.norm(dim=1) < 0.999).all()


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_gpu_equals_cpu(monkeypatch):
    on_gpu = _everything(0)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    on_cpu = _everything(0)
    assert torch.equal(on_gpu[0], on_cpu[0])
    for found, expected in zip(on_gpu[1:], on_cpu[1:], strict=True):
        assert found.device.type == "cpu"
        assert torch.allclose(found, expected, atol=1e-6)


def test_without_room_on_the_gpu_the_features_stay_where_they_are(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda: (3 * 4 * 40 * 16 - 1, 10**12))
    whole = nnf.normalize(torch.randn(40, 16), dim=1)
    assert Space.of(whole).features.device.type == "cpu"


@pytest.mark.parametrize("name", ["cameras", "persons"])
def test_an_id_for_each_image(name):
    with pytest.raises(
        ValueError, match=rf"{name} must have shape \(3,\), got \(2,\); give one per"
    ):
        Space.of(torch.eye(3), **{name: torch.arange(2)})


@pytest.mark.parametrize(
    ("features", "fix"),
    [
        (torch.zeros(3, 4), "norm of 0 in row 0; a network that gives nothing has diverged"),
        (torch.full((3, 4), 0.498), "normalise in 32 bits, .*normalize\\(features.float\\(\\)\\)"),
        (torch.ones(3, 4), "norm of 2 in row 0; call torch.nn.functional.normalize\\(features\\)"),
    ],
)
def test_features_of_another_norm_are_told_apart(features, fix):
    with pytest.raises(ValueError, match=fix):
        Space.of(features).neighbors(2)
