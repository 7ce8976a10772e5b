from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.distributed as dist
import torch.nn.functional as nnf
from sklearn.metrics import average_precision_score

from pplr_lightning.evaluation.metric import ReIDRetrieval
from pplr_lightning.functional import rerank_distance, retrieval, retrieval_metrics
from pplr_lightning.functional.retrieval import GalleryIndex

from ..processes import launch


@pytest.fixture
def images():
    torch.manual_seed(0)
    persons = torch.randint(0, 5, (60,))
    return (
        nnf.normalize(torch.randn(60, 8) + nnf.one_hot(persons, 8), dim=1),
        persons,
        torch.randint(0, 3, (60,)),
        torch.arange(60) < 15,
        torch.arange(60),
    )


def evaluate(images, *orders, **options):
    metric = ReIDRetrieval(**options)
    for order in orders:
        metric.update(*(value[order] for value in images))
    return metric.compute()


def test_equals_the_function(images):
    features, persons, cameras, query, _ = images
    distance = 2 - 2 * features[query] @ features[~query].T
    expected = retrieval_metrics(
        distance, persons[query], persons[~query], cameras[query], cameras[~query]
    )
    assert evaluate(images, torch.arange(60)) == pytest.approx(expected, abs=1e-7)


def test_map_is_scikit_learns(images):
    features, persons, cameras, query, _ = images
    similarity = features[query] @ features[~query].T
    values = []
    for q in range(15):
        keep = ~((persons[~query] == persons[q]) & (cameras[~query] == cameras[q]))
        relevant = persons[~query][keep] == persons[q]
        values.append(average_precision_score(relevant, similarity[q][keep]))
    expected = sum(values) / len(values)
    assert evaluate(images, torch.arange(60))["mAP"] == pytest.approx(expected, abs=1e-6)


def test_order_batches_and_padding_change_nothing(images):
    expected = evaluate(images, torch.arange(60))
    shuffled = torch.randperm(60, generator=torch.Generator().manual_seed(1))
    padded = torch.cat([shuffled, shuffled[:7]])  # a sampler that fills up to equal shares
    assert evaluate(images, *padded.split(16)) == expected


def test_keeps_the_rankings_of_three_queries(images):
    features, persons, cameras, query, _ = images
    persons[3] = 99  # a query without a match, which is not counted
    shuffled = torch.randperm(60, generator=torch.Generator().manual_seed(1))
    metric = ReIDRetrieval()
    metric.update(*(value[shuffled] for value in images))
    metric.compute()
    metric.reset()
    assert [one.name for one in metric.rankings] == ["best", "median", "worst"]
    distance = 2 - 2 * features[query] @ features[~query].T
    gallery = GalleryIndex(persons[~query], cameras[~query])
    precision = gallery.score(distance, persons[query], cameras[query])[:, 0]
    ordered = precision[torch.arange(15) != 3].sort(descending=True).values
    found = [one.average_precision for one in metric.rankings]
    assert found == pytest.approx(ordered[[0, 7, 13]].tolist())
    for one in metric.rankings:
        assert one.average_precision == pytest.approx(precision[one.query].item())
        assert one.gallery == distance[one.query].argsort()[:10].tolist()


def test_matches_of_the_same_camera(images):
    features, persons, _, query, _ = images
    similarity = features[query] @ features[~query].T
    values = [
        average_precision_score(persons[~query] == persons[q], similarity[q]) for q in range(15)
    ]
    found = evaluate(images, torch.arange(60), same_camera=True)
    assert found["mAP"] == pytest.approx(sum(values) / len(values), abs=1e-6)
    assert found["mAP"] != pytest.approx(evaluate(images, torch.arange(60))["mAP"], abs=1e-3)


def test_a_query_in_the_gallery_does_not_find_itself(images):
    """Query and gallery are one folder, without cameras."""
    features, persons, *_ = (value[:30] for value in images)
    numbers = torch.arange(60)
    twice = [torch.cat([value, value]) for value in (features, persons)]
    cameras = torch.where(numbers < 30, -2, -1)
    metric = ReIDRetrieval()
    metric.update(*twice, cameras, numbers < 30, numbers, numbers % 30)
    distance = 2 - 2 * features @ features.T
    distance.fill_diagonal_(torch.inf)
    similarity, same = -distance, persons[:, None] == persons
    others = ~torch.eye(30, dtype=torch.bool)
    values = [
        average_precision_score(same[q][others[q]], similarity[q][others[q]])
        for q in range(30)
        if same[q].sum() > 1
    ]
    assert metric.compute()["mAP"] == pytest.approx(sum(values) / len(values), abs=1e-6)


class TestTracklets:
    def split(self, images, *orders):
        """The metric of tracklets of some four frames: every one has a person and a camera."""
        features, *_, indices = images
        numbers = indices // 4
        persons, cameras = numbers % 3, numbers % 2
        values = features, persons, cameras, numbers < 5, indices, indices, numbers
        metric = ReIDRetrieval(topk=(1, 2, 3))
        for order in orders:
            metric.update(*(value[order] for value in values))
        return metric, values

    def test_means_of_unit_features_are_compared(self, images):
        metric, (features, persons, cameras, query, *_) = self.split(images, torch.arange(60))
        pooled = nnf.normalize(features.double().unflatten(0, (15, 4)).mean(1), dim=1)
        persons, cameras, query = persons[::4], cameras[::4], query[::4]
        expected = retrieval_metrics(
            2 - 2 * pooled[query] @ pooled[~query].T,
            *(persons[query], persons[~query], cameras[query], cameras[~query]),
            topk=(1, 2, 3),
        )
        assert metric.compute() == pytest.approx(expected, abs=1e-12)

    def test_batches_that_cut_tracklets_change_nothing(self, images):
        expected = self.split(images, torch.arange(60))[0].compute()
        metric, _ = self.split(images, *torch.arange(60).split(7))
        assert metric.compute() == expected
        metric, _ = self.split(images, *torch.arange(60)[:, None])
        assert metric.compute() == expected

    def test_features_of_frames_are_not_kept(self, images):
        metric, _ = self.split(images, *torch.arange(60).split(20))
        assert sum(len(rows) for rows in metric.features) == 15

    def test_a_query_tracklet_in_the_gallery_does_not_find_itself(self, images):
        features = images[0][:24]
        numbers = torch.arange(48) // 2
        metric = ReIDRetrieval(same_camera=True)
        persons, cameras = numbers % 12 // 2, torch.zeros(48)
        metric.update(
            torch.cat([features, features]), persons, cameras, numbers < 12, torch.arange(48),
            torch.arange(48) % 24, numbers,
        )  # fmt: skip
        pooled = nnf.normalize(features.unflatten(0, (12, 2)).mean(1), dim=1)
        distance = (2 - 2 * pooled @ pooled.T).fill_diagonal_(torch.inf)
        ranks = 1 + (distance < distance[torch.arange(12), torch.arange(12) ^ 1, None]).sum(1)
        assert metric.compute()["mAP"] == pytest.approx((1 / ranks).mean().item())

    def test_a_frame_that_comes_twice(self, images):
        order = torch.arange(60)
        with pytest.raises(ValueError, match="frames of tracklets came twice"):
            self.split(images, order, order[:1])[0].compute()


def test_reset_forgets(images):
    metric = ReIDRetrieval()
    metric.update(*(value.flip(0) for value in images))
    metric.reset()
    metric.update(*images)
    assert metric.compute() == evaluate(images, torch.arange(60))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
@pytest.mark.parametrize("rows", [1, 4, 15])
def test_streaming_equals_given_distances(images, monkeypatch, dtype, rows):
    features, persons, cameras, query, _ = images
    features = features.to(dtype)
    images = features, *images[1:]
    monkeypatch.setattr(retrieval, "CHUNK_BYTES", rows * 8 * 45)
    exact = features if dtype == torch.float64 else features.float()
    distance = torch.cat([row[None] @ exact[~query].T for row in exact[query]])
    expected = retrieval_metrics(
        2 - 2 * distance, persons[query], persons[~query], cameras[query], cameras[~query]
    )
    assert evaluate(images, torch.arange(60)) == pytest.approx(expected, abs=1e-12)


def test_all_distances_are_never_held(images, monkeypatch):
    monkeypatch.setattr(retrieval, "CHUNK_BYTES", 4 * 8 * 45)
    sizes = []
    score = GalleryIndex.score
    monkeypatch.setattr(
        GalleryIndex, "score", lambda *args: sizes.append(args[1].shape) or score(*args)
    )
    evaluate(images, torch.arange(60))
    assert sorted(sizes) == [(3, 45), (4, 45), (4, 45), (4, 45)]


@pytest.mark.usefixtures("three_threads")
def test_torch_keeps_its_threads(images):
    before = torch.get_num_threads()
    evaluate(images, torch.arange(60))
    assert torch.get_num_threads() == before
    with ThreadPoolExecutor(1) as other:
        assert other.submit(torch.get_num_threads).result() == before


@pytest.mark.parametrize(
    ("position", "value", "message"),
    [
        (0, torch.full((60, 8), torch.nan), "distance must be finite, got 675 values"),
        (1, torch.arange(60), "no query can be counted, got 15 queries"),
        (3, torch.ones(60), r"must not be empty, got shape \(60, 0\)"),
        (3, torch.zeros(60), r"must not be empty, got shape \(0, 60\)"),
    ],
)
def test_bad_images(images, position, value, message):
    images = list(images)
    images[position] = value
    with pytest.raises(ValueError, match=message):
        evaluate(images, torch.arange(60))


def _tracked(rank):
    """Metrics of tracklets that ranks have parts of; frames are dealt out in order."""
    generator = torch.Generator().manual_seed(0)
    features = nnf.normalize(torch.randn(1029, 129, generator=generator), dim=1)
    indices = torch.arange(1029)
    tracklets = indices // 5
    values = (features, tracklets % 23, tracklets % 3, tracklets < 60, indices, indices, tracklets)
    blocks = indices.split(32)
    world = dist.get_world_size() if dist.is_initialized() else 1
    metric = ReIDRetrieval()
    for block in blocks[rank * len(blocks) // world : (rank + 1) * len(blocks) // world]:
        metric.update(*(value[block] for value in values))
    return metric.compute()


def _ranked(rank, broken=None, rerank=False, rows=7):
    """Metrics or the error, and the distances that this rank scored.

    The product's size is one that MKL rounds differently on one thread, on two and in parts. Tests
    call it after `launch`: a thread that is just ending while ranks are forked may hold a lock of
    MKL's, for which they would wait for ever.
    """
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(0, 50, (1029,), generator=generator)
    features = nnf.normalize(torch.randn(1029, 513, generator=generator), dim=1)
    if broken is not None:
        features[broken] = torch.nan
    indices = torch.arange(1029)
    images = features, ids, indices % 3, indices < 30, indices
    world = dist.get_world_size() if dist.is_initialized() else 1
    order = torch.arange(1032) % 1029  # padded, and dealt out in turn
    seen, score = [], GalleryIndex.score
    metric = ReIDRetrieval(rerank=rerank)
    metric.update(*(value[order[rank::world]] for value in images))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(retrieval, "CHUNK_BYTES", rows * 8 * 999)  # 5 blocks of 7 queries or 2
        patch.setattr(
            GalleryIndex, "score", lambda *args: seen.append(args[1].clone()) or score(*args)
        )
        try:
            return {**metric.compute(), "rankings": metric.rankings}, seen
        except ValueError as error:
            return str(error), seen


@pytest.mark.parametrize("rerank", [False, True])
@pytest.mark.parametrize("world_size", [1, 2, 4])
def test_ranks_share_the_queries_and_agree_to_the_last_bit(world_size, rerank, tmp_path):
    results = launch(
        lambda rank: (*_ranked(rank, rerank=rerank), _tracked(rank)), world_size, tmp_path
    )
    expected, blocks = _ranked(0, rerank=rerank)  # on two threads, the ranks have one each
    assert [tracked for *_, tracked in results] == [_tracked(0)] * world_size
    results = [result[:2] for result in results]
    assert [metrics for metrics, _ in results] == [expected] * world_size
    shares = [len(seen) // (1 + rerank) for _, seen in results]
    assert shares == {1: [5], 2: [2, 3], 4: [1, 1, 1, 2]}[world_size]
    together = [block for _, seen in results for block in seen]
    # Threads may have come to their blocks in any order.
    together, blocks = (sorted(some, key=lambda b: b[0, 0]) for some in (together, blocks))
    assert all(map(torch.equal, together, blocks))


def test_ranks_without_queries(tmp_path):
    work = partial(_ranked, rerank=True, rows=15)  # 2 blocks
    results = launch(work, 4, tmp_path)
    expected, _ = work(0)
    assert sorted(len(seen) for _, seen in results) == [0, 0, 2, 2]
    assert [metrics for metrics, _ in results] == [expected] * 4


@pytest.mark.parametrize(
    ("rerank", "message"), [(False, "got 999 values of NaN or Inf"), (True, "NaN or Inf in 1 of")]
)
def test_all_ranks_raise_what_one_has_seen(rerank, message, tmp_path):
    work = partial(_ranked, broken=29, rerank=rerank)
    results = launch(work, 4, tmp_path)
    expected, _ = work(0)
    assert message in expected
    assert [text for text, _ in results] == [expected] * 4


class TestReranked:
    def test_equals_the_authors_metrics(self):
        with np.load(Path(__file__).parents[1] / "reference/evaluation.npz") as arrays:
            expected = dict(arrays)
        query, gallery = (
            [torch.from_numpy(expected[f"{side}_{key}"]) for key in ("feature", "id", "camera")]
            for side in ("query", "gallery")
        )
        features, ids, cameras = map(torch.cat, zip(query, gallery, strict=True))
        indices = torch.arange(len(ids))
        metric = ReIDRetrieval(topk=tuple(range(1, 101)), rerank=True)
        metric.update(features, ids, cameras, indices < len(query[0]), indices)
        values = metric.compute()
        for name, prefix in (("plain", ""), ("reranked", "rerank/")):
            assert values[f"{prefix}mAP"] == pytest.approx(float(expected[f"{name}_map"]), abs=1e-6)
            cmc = [values[f"{prefix}rank-{k}"] for k in range(1, 101)]
            assert cmc == pytest.approx(expected[f"{name}_cmc"].tolist(), abs=1e-6)

    @pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
    @pytest.mark.parametrize("rows", [1, 4, 15])
    def test_equals_the_function(self, images, monkeypatch, dtype, rows):
        features, persons, cameras, query, _ = images
        monkeypatch.setattr(retrieval, "CHUNK_BYTES", rows * 8 * 45)
        expected = retrieval_metrics(
            rerank_distance(features[query], features[~query]),
            *(persons[query], persons[~query], cameras[query], cameras[~query]),
        )
        images = features.to(dtype), *images[1:]
        values = evaluate(images, torch.arange(60), rerank=True)
        reranked = {f"rerank/{name}": value for name, value in expected.items()}
        assert values == pytest.approx(evaluate(images, torch.arange(60)) | reranked, abs=1e-6)
        assert values["rerank/mAP"] != pytest.approx(values["mAP"], abs=1e-3)

    def test_all_distances_are_never_held(self, images, monkeypatch):
        monkeypatch.setattr(retrieval, "CHUNK_BYTES", 4 * 8 * 45)
        sizes = []
        score = GalleryIndex.score
        monkeypatch.setattr(
            GalleryIndex, "score", lambda *args: sizes.append(args[1].shape) or score(*args)
        )
        evaluate(images, torch.arange(60), rerank=True)
        assert sorted(sizes) == sorted(2 * [(3, 45), (4, 45), (4, 45), (4, 45)])

    def test_too_few_images(self, images):
        with pytest.raises(ValueError, match="k1=20 for 19 images"):
            evaluate(images, torch.arange(20), rerank=True)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_gpu_equals_cpu(images):
    on_gpu = [value.cuda() for value in images]
    order = torch.arange(60)
    for rerank in (False, True):
        expected = evaluate(images, order, rerank=rerank)
        assert evaluate(on_gpu, order, rerank=rerank) == pytest.approx(expected, abs=1e-6)
