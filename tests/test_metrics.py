from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
import torch.distributed as dist
import torch.nn.functional as nnf
from sklearn.metrics import average_precision_score

from pplr_lightning.functional import retrieval, retrieval_metrics
from pplr_lightning.functional.retrieval import GalleryIndex
from pplr_lightning.metrics import ReIDRetrieval, label_quality

from .processes import launch


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


def evaluate(images, *orders):
    metric = ReIDRetrieval()
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


def _ranked(rank, broken=None):
    """Metrics or the error, and the distances that this rank scored.

    The product's size is one that MKL rounds differently on one thread, on two and in parts.
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
    metric = ReIDRetrieval()
    metric.update(*(value[order[rank::world]] for value in images))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(retrieval, "CHUNK_BYTES", 7 * 8 * 999)  # 5 blocks of 7 queries or 2
        patch.setattr(
            GalleryIndex, "score", lambda *args: seen.append(args[1].clone()) or score(*args)
        )
        try:
            return metric.compute(), seen
        except ValueError as error:
            return str(error), seen


def _with_broken_query(rank):
    return _ranked(rank, broken=29)


@pytest.mark.parametrize("world_size", [1, 2, 4])
def test_ranks_share_the_queries_and_agree_to_the_last_bit(world_size, tmp_path):
    expected, blocks = _ranked(0)  # on two threads, the ranks have one each
    results = launch(_ranked, world_size, tmp_path)
    assert [metrics for metrics, _ in results] == [expected] * world_size
    shares = [len(seen) for _, seen in results]
    assert shares == {1: [5], 2: [2, 3], 4: [1, 1, 1, 2]}[world_size]
    together = [block for _, seen in results for block in seen]
    # Threads may have come to their blocks in any order.
    together, blocks = (sorted(some, key=lambda b: b[0, 0]) for some in (together, blocks))
    assert all(map(torch.equal, together, blocks))


def test_all_ranks_raise_what_one_has_seen(tmp_path):
    expected, _ = _with_broken_query(0)
    assert "got 999 values of NaN or Inf" in expected
    assert [text for text, _ in launch(_with_broken_query, 4, tmp_path)] == [expected] * 4


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_gpu_equals_cpu(images):
    on_gpu = [value.cuda() for value in images]
    order = torch.arange(60)
    assert evaluate(on_gpu, order) == pytest.approx(evaluate(images, order), abs=1e-6)


class TestLabelQuality:
    def test_by_hand(self):
        labels = torch.tensor([0, 0, 0, 1, 1, -1])
        persons = torch.tensor([5, 5, 6, 6, 6, 5])
        quality = label_quality(labels, persons)
        # pairs in one cluster: 3 + 1, of which of one person 1 + 1; of one person: 1 + 3
        assert quality.precision == pytest.approx(2 / 4)
        assert quality.recall == pytest.approx(2 / 4)

    def test_perfect(self):
        labels = torch.tensor([3, 3, 1, 1, -1])
        assert label_quality(labels, torch.tensor([7, 7, 8, 8, 7])) == (1.0, 1.0, 1.0)

    def test_outliers_only(self):
        assert label_quality(torch.tensor([-1, -1]), torch.tensor([1, 2])) == (0.0, 0.0, 0.0)
