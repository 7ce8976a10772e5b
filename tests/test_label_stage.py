from __future__ import annotations

from contextlib import contextmanager

import pytest
import torch
import torch.distributed as dist
import torch.nn.functional as nnf

from pplr_lightning import functional as F
from pplr_lightning import label_stage
from pplr_lightning.distributed import new_patient_group
from pplr_lightning.functional.sharding import Share
from pplr_lightning.label_stage import LabelStage
from pplr_lightning.stages import Stages

from .processes import launch


def features(clusters=5, each=8, spread=0.05):
    torch.manual_seed(0)
    centres = nnf.normalize(torch.randn(clusters, 16), dim=1).repeat_interleave(each, 0)
    images = len(centres)
    return (
        nnf.normalize(centres + spread * torch.randn(images, 16), dim=1),
        nnf.normalize(centres.unsqueeze(2) + spread * torch.randn(images, 16, 3), dim=1),
    )


def _label_tied(rank, broken=False, camera_jaccard=False):
    """Labels many images with ties at eps and duplicates, shared over the ranks there are."""
    whole, parts = features(clusters=40, each=9, spread=0.3)
    whole[100:110] = whole[200:210]
    whole[300:330] = whole[150].clone()  # more equals than a search has to spare
    group, own = None, slice(None)
    if dist.is_initialized():
        group = new_patient_group()
        # one of four ranks has no image
        cuts = [0, 35, 35, 85, 360] if dist.get_world_size() == 4 else [0, 310, 360]
        own = slice(cuts[rank], cuts[rank + 1])
    if broken:
        whole[350, 3] = torch.nan
    stage = LabelStage(k1=12, k2=6, agreement_k=5, camera_jaccard=camera_jaccard)
    share = Share(len(whole[own]), group)
    cameras = torch.arange(360) % 3
    return stage.label(whole[own], parts[own], cameras=cameras, share=share)


def _label_by_camera(rank):
    return _label_tied(rank, camera_jaccard=True)


def _label_broken(rank):
    return _label_tied(rank, broken=True)


@pytest.fixture
def stage():
    return LabelStage(k1=8, k2=3, agreement_k=5)


class TestLabel:
    def test_finds_well_separated_groups(self, stage):
        labels = stage.label(*features())
        assert torch.equal(labels.labels, torch.arange(5).repeat_interleave(8))
        assert labels.agreement.shape == (40, 3)
        assert labels.centroids.shape == (5, 16)
        assert labels.part_centroids.shape == (5, 16, 3)
        assert labels.num_clusters == 5
        assert labels.outlier_share == 0

    def test_measures_each_of_its_stages_in_their_order(self, stage):
        told = []

        @contextmanager
        def show(name, count):
            told.append((name, count))
            yield lambda: told.append("a part")

        stages = Stages(show)
        whole = stage.label(*features(), stages=stages)
        assert told == [
            ("neighbors", None), ("jaccard", None), ("dbscan", None),
            ("agreement", 3), "a part", "a part", "a part", ("centroids", None),
        ]  # fmt: skip
        assert list(stages.seconds) == ["neighbors", "jaccard", "dbscan", "agreement", "centroids"]
        assert all(seconds > 0 for seconds in stages.seconds.values())
        assert torch.equal(whole.labels, stage.label(*features()).labels)

    def test_is_the_functions_in_their_order(self, stage):
        whole, parts = features(spread=0.4)
        labels = stage.label(whole, parts)
        expected = F.dbscan(F.jaccard_distance(whole, k1=8, k2=3), eps=0.5, min_samples=4)
        assert torch.equal(labels.labels, expected)
        assert torch.equal(labels.agreement, F.cross_agreement(whole, parts, k=5))
        assert torch.equal(labels.centroids, F.cluster_centroids(whole, expected))

    def test_proxies_are_the_means_of_each_cluster_in_each_camera(self, stage):
        whole, parts = features()
        cameras = torch.arange(40) % 3
        labels = stage.label(whole, parts, cameras=cameras)
        assert stage.label(whole, parts).proxies is None
        assert stage.label(whole, parts, cameras=cameras, proxies=False).proxies is None
        proxies = labels.proxies
        assert len(proxies.labels) == 15
        for pair, (cluster, camera) in enumerate(zip(proxies.labels, proxies.cameras, strict=True)):
            members = (labels.labels == cluster) & (cameras == camera)
            expected = nnf.normalize(whole[members].mean(0), dim=0)
            assert torch.allclose(proxies.features[pair], expected, atol=1e-6)
            expected = nnf.normalize(parts[members].mean(0), dim=0)
            assert torch.allclose(proxies.part_features[pair], expected, atol=1e-6)

    def test_fewer_images_than_neighbours(self, stage):
        whole, parts = features(clusters=1, each=6)
        with pytest.raises(ValueError, match=r"pseudo_labels.k1=8 for 6 images"):
            stage.label(whole, parts)
        whole, parts = features()
        with pytest.raises(ValueError, match="40 images and part features of 39"):
            stage.label(whole, parts[1:])

    def test_no_cluster_stops_with_what_to_change(self):
        stage = LabelStage(k1=8, k2=3, agreement_k=5, min_samples=30)
        with pytest.raises(ValueError, match=r"no cluster in 40 images, 40 .*eps .*min_samples"):
            stage.label(*features())

    def test_one_cluster_stops_with_what_to_change(self, stage):
        with pytest.raises(ValueError, match=r"a single cluster in 8 images.*lower .*eps"):
            stage.label(*features(clusters=1))

    def test_more_clusters_than_rows_keeps_the_largest(self, stage):
        whole, parts = features()
        keep = torch.ones(40, dtype=torch.bool)
        keep[[0, 1, 2, 16]] = False  # clusters 0 and 2 are smaller
        with pytest.warns(UserWarning, match=r"5 clusters, but model.max_clusters=3"):
            labels = stage.label(whole[keep], parts[keep], max_clusters=3)
        expected = torch.tensor([-1] * 5 + [0] * 8 + [-1] * 7 + [1] * 8 + [2] * 8)
        assert torch.equal(labels.labels, expected)
        assert labels.num_clusters == 3

    @pytest.mark.parametrize("label", [_label_tied, _label_by_camera])
    @pytest.mark.parametrize("world_size", [2, 4])
    def test_does_not_depend_on_the_number_of_ranks(self, world_size, label, tmp_path):
        alone = label(0)
        assert alone.num_clusters > 10
        assert 0 < alone.outlier_share < 1
        for labels in launch(label, world_size, tmp_path):
            assert torch.equal(labels.labels, alone.labels)
            assert torch.equal(labels.agreement, alone.agreement)
            torch.testing.assert_close(labels.centroids, alone.centroids, rtol=1e-6, atol=1e-7)
            torch.testing.assert_close(
                labels.part_centroids, alone.part_centroids, rtol=1e-6, atol=1e-7
            )

    def test_a_bad_feature_on_one_rank_stops_all(self, tmp_path):
        first, second = launch(_label_broken, 2, tmp_path)
        assert second.startswith("ValueError: features must be finite, got NaN or Inf in 1 of 50")
        assert first == f"ValueError: rank 1 stopped with {second}"

    def test_camera_aware_distance_on_request(self):
        whole, parts = features(spread=0.4)
        cameras = torch.arange(40) % 3
        counts = {"k1_intra": 3, "k1_inter": 7, "k2_intra": 1, "k2_inter": 3}
        # k1 and k2 are not used: there need not be so many images
        stage = LabelStage(k1=50, k2=50, agreement_k=5, camera_jaccard=True, **counts)
        labels = stage.label(whole, parts, cameras=cameras)
        distance = F.camera_jaccard_distance(whole, cameras, **counts)
        assert torch.equal(labels.labels, F.dbscan(distance, eps=0.5, min_samples=4))
        assert torch.equal(labels.agreement, F.cross_agreement(whole, parts, k=5))
        plain = LabelStage(k1=8, k2=3, agreement_k=5).label(whole, parts, cameras=cameras)
        assert not torch.equal(labels.labels, plain.labels)

    @pytest.mark.parametrize(
        ("cameras", "message"),
        [
            (None, "camera_jaccard needs cameras: pass them, or set pseudo_labels.camera_jaccard"),
            (torch.arange(40) % 3 - 1, "got -1 for 14 of 40 images.* or set .*camera_jaccard to"),
            (torch.zeros(40), "camera_jaccard: cameras must be two or more, got .* for all 40"),
            (torch.arange(39), r"camera_jaccard: cameras must be \(40,\), got shape \(39,\)"),
        ],
    )
    def test_camera_aware_distance_without_cameras(self, cameras, message):
        with pytest.raises(ValueError, match=message):
            LabelStage(agreement_k=5, camera_jaccard=True).label(*features(), cameras=cameras)

    def test_identities_need_no_cameras(self):
        stage = LabelStage(agreement_k=5, camera_jaccard=True, source="identities")
        persons = torch.arange(40) % 4
        assert torch.equal(stage.label(*features(), person_ids=persons).labels, persons)

    def test_identities_instead_of_clusters(self):
        stage = LabelStage(k1=8, k2=3, agreement_k=5, source="identities")
        persons = torch.tensor([7, 3, -1, 9] * 10)
        labels = stage.label(*features(), person_ids=persons)
        assert torch.equal(labels.labels, torch.tensor([1, 0, -1, 2] * 10))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"k1": 0}, "k1=0"),
        ({"min_samples": 0}, "min_samples=0"),
        ({"k1_intra": 0}, "k1_intra=0: must be at least 1"),
        ({"k1_inter": 0}, "k1_inter=0"),
        ({"k2_intra": 0}, "k2_intra=0"),
        ({"k2_inter": 0}, "k2_inter=0"),
        ({"eps": 0}, r"eps=0: a Jaccard distance lies in \(0, 1\]"),
        ({"eps": 1.5}, "eps=1.5"),
        ({"source": "identity"}, "source='identity': choose 'clusters' or 'identities'"),
    ],
)
def test_bad_options(options, message):
    with pytest.raises(ValueError, match=message):
        LabelStage(**options)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("camera_jaccard", [False, True])
def test_gpu_equals_cpu(monkeypatch, camera_jaccard):
    on_gpu = _label_tied(0, camera_jaccard=camera_jaccard)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    on_cpu = _label_tied(0, camera_jaccard=camera_jaccard)
    assert torch.equal(on_gpu.labels, on_cpu.labels)
    assert torch.equal(on_gpu.agreement, on_cpu.agreement)
    for name in ("centroids", "part_centroids"):
        assert torch.allclose(getattr(on_gpu, name), getattr(on_cpu, name), atol=1e-6)
    for found, expected in zip(on_gpu.proxies, on_cpu.proxies, strict=True):
        assert found.device.type == "cpu"
        assert torch.allclose(found, expected, atol=1e-6)


def test_without_room_on_the_gpu_the_features_stay_where_they_are(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda: (3 * 4 * 100 - 1, 10**12))
    (rows,) = label_stage._to_gpu(torch.zeros(100))
    assert rows.device.type == "cpu"
