from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.metrics import average_precision_score

from pplr_lightning.functional import rerank_distance, retrieval_metrics
from pplr_lightning.functional import retrieval as module
from pplr_lightning.functional.retrieval import GalleryIndex, query_blocks


def random_case(seed, *, queries=30, gallery=80, levels=None):
    """Draw distances (few levels make ties), ids with junk, and cameras."""
    generator = torch.Generator().manual_seed(seed)

    def integers(low, high, size):
        return torch.randint(low, high, (size,), generator=generator)

    distance = torch.rand(queries, gallery, generator=generator)
    if levels:
        distance = (distance * levels).floor() / levels
    ids = integers(0, 8, queries), integers(-1, 8, gallery)
    return distance, *ids, integers(0, 3, queries), integers(0, 3, gallery)


def loop_metrics(distance, query_ids, gallery_ids, query_cameras, gallery_cameras, topk):
    """Score one query after the other, with scikit-learn's average precision."""
    precisions, firsts, inverses = [], [], []
    for row, person, camera in zip(distance, query_ids, query_cameras, strict=True):
        keep = (gallery_ids != -1) & ((gallery_ids != person) | (gallery_cameras != camera))
        match = (gallery_ids == person)[keep].numpy()
        if not match.any():
            continue
        row = row[keep].numpy()
        precisions.append(average_precision_score(match, -row))
        ranks = 1 + np.flatnonzero(match[np.argsort(row, kind="stable")])
        firsts.append(ranks[0])
        inverses.append(len(ranks) / ranks[-1])
    result = {f"rank-{k}": np.mean(np.array(firsts) <= k) for k in topk}
    return result | {"mAP": np.mean(precisions), "mINP": np.mean(inverses)}


@pytest.mark.parametrize("reranked", [False, True])
def test_equals_the_authors_metrics(reference, reranked):
    arrays = reference("evaluation")
    distance = arrays["distance"]
    if reranked:
        distance = rerank_distance(arrays["query_feature"], arrays["gallery_feature"])
    ids = [arrays[key] for key in ("query_id", "gallery_id", "query_camera", "gallery_camera")]
    result = retrieval_metrics(distance, *ids, topk=range(1, 101))
    name = "reranked" if reranked else "plain"
    assert abs(result["mAP"] - float(arrays[f"{name}_map"])) <= 1e-6
    cmc = np.array([result[f"rank-{k}"] for k in range(1, 101)])
    assert np.abs(cmc - arrays[f"{name}_cmc"].numpy()).max() <= 1e-6


@pytest.mark.parametrize("levels", [None, 50, 4, 1])
@pytest.mark.parametrize("seed", range(5))
def test_equals_scikit_learn(seed, levels):
    case = random_case(seed, levels=levels)
    topk = (1, 2, 3, 5, 10)
    result = retrieval_metrics(*case, topk=topk)
    assert result == pytest.approx(loop_metrics(*case, topk), abs=1e-12)
    assert all(type(value) is float for value in result.values())


def test_by_hand():
    # Sorted gallery: same camera (out), other, match, junk (out), other, match. Ranks 2 and 4.
    result = retrieval_metrics(
        torch.tensor([[0.1, 0.2, 0.3, 0.4, 0.5, 0.6]]),
        torch.tensor([5]),
        torch.tensor([5, 6, 5, -1, 7, 5]),
        torch.tensor([0]),
        torch.tensor([0, 0, 1, 1, 0, 2]),
        topk=(1, 2),
    )
    assert result == {"mAP": (1 / 2 + 2 / 4) / 2, "mINP": 2 / 4, "rank-1": 0, "rank-2": 1}


def test_ties_by_hand():
    # All equal: the precision of the one threshold is 1/3, the match stands second by its index.
    result = retrieval_metrics(
        torch.zeros(1, 3),
        torch.tensor([5]),
        torch.tensor([6, 5, 7]),
        torch.tensor([0]),
        torch.ones(3),
        topk=(1, 2),
    )
    assert result == pytest.approx({"mAP": 1 / 3, "mINP": 1 / 2, "rank-1": 0, "rank-2": 1})


def test_uncounted_queries_change_nothing():
    case = random_case(6)
    distance, query_ids, gallery_ids, query_cameras, gallery_cameras = case
    more = retrieval_metrics(
        torch.cat([distance, distance[:3]]),
        torch.cat([query_ids, torch.tensor([-1, 99, 100])]),
        gallery_ids,
        torch.cat([query_cameras, torch.tensor([0, 1, 2])]),
        gallery_cameras,
    )
    assert more == retrieval_metrics(*case)


def test_topk_beyond_the_gallery_is_one():
    assert retrieval_metrics(*random_case(7), topk=(1000,))["rank-1000"] == 1


@pytest.mark.parametrize("rows", [1, 7])
def test_blocks_do_not_change_the_result(monkeypatch, rows):
    case = random_case(8, levels=20)
    whole = retrieval_metrics(*case)
    monkeypatch.setattr(module, "CHUNK_BYTES", rows * 8 * 80)
    monkeypatch.setattr(module, "THREAD_ROWS", 2)
    assert max(block.stop - block.start for block in query_blocks(30, 80)) == rows
    assert retrieval_metrics(*case) == whole


@pytest.mark.parametrize("chunk_bytes", [1, 800, 10**6])
def test_blocks_are_consecutive(monkeypatch, chunk_bytes):
    monkeypatch.setattr(module, "CHUNK_BYTES", chunk_bytes)
    covered = [q for block in query_blocks(23, 10) for q in range(block.start, block.stop)]
    assert covered == list(range(23))


@pytest.mark.parametrize("seed", range(3))
def test_many_matches(seed):
    distance, query_ids, gallery_ids, *cameras = random_case(
        seed, queries=6, gallery=3000, levels=700
    )
    case = distance, query_ids % 2, gallery_ids.clamp(max=1), *cameras
    assert retrieval_metrics(*case) == pytest.approx(loop_metrics(*case, (1, 5, 10)), abs=1e-12)


def test_float64_is_kept():
    distance, *ids = random_case(13)
    case = 1 + distance.double() / 2**40, *ids
    result = retrieval_metrics(*case)
    assert result == pytest.approx(loop_metrics(*case, (1, 5, 10)), abs=1e-12)
    assert result == retrieval_metrics(distance, *ids)
    assert result != retrieval_metrics(case[0].float(), *ids)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.int64])
def test_other_types(dtype):
    distance, *ids = random_case(14)
    distance = (100 * distance).to(dtype)
    assert retrieval_metrics(distance, *ids) == retrieval_metrics(distance.double(), *ids)


def test_any_layout_and_gradients():
    distance, *ids = random_case(15)
    scattered = distance.T.contiguous().T.requires_grad_()
    assert retrieval_metrics(scattered, *ids) == retrieval_metrics(distance, *ids)
    assert torch.equal(scattered, distance)  # nothing was written to it


def test_scores_by_hand():
    gallery = GalleryIndex(torch.tensor([5, 6, 5, -1, 5]), torch.tensor([0, 0, 1, 1, 2]))
    scores = gallery.score(
        torch.tensor([[0.1, 0.2, 0.3, 0.1, 0.4], [0, 0, 0, torch.inf, torch.nan], [0.0] * 5]),
        torch.tensor([5, 5, -1]),
        torch.tensor([0, 0, 0]),
    )
    expected = [[(1 / 2 + 2 / 3) / 2, 2, 2 / 3, 0], [0, 0, 0, 2], [0, 0, 0, 0]]
    assert scores.tolist() == expected


def test_a_query_does_not_match_its_own_file():
    ids, cameras = torch.tensor([5, 6, 5]), torch.tensor([-1, -1, -1])
    gallery = GalleryIndex(ids, cameras, torch.tensor([7, 8, 9]))
    queries = torch.tensor([5, 5, 6]), torch.tensor([-2, -2, -2]), torch.tensor([7, 3, 8])
    distance = torch.tensor([[0.0, 0.1, 0.2], [0.0, 0.1, 0.2], [0.1, 0.0, 0.2]])
    firsts = gallery.score(distance, *queries)[:, 1]
    assert firsts.tolist() == [2, 1, 0]  # of the first the other image; of the last there is none


def test_negative_distances_are_fine():
    distance, *ids = random_case(9)
    assert retrieval_metrics(distance - 5, *ids) == retrieval_metrics(distance, *ids)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({0: torch.zeros(30, 79)}, r"distance must have shape \(30, 80\), got \(30, 79\)"),
        ({3: torch.zeros(29)}, r"query_cameras must have shape \(30,\).*got \(29,\)"),
        ({4: torch.zeros(81)}, r"gallery_cameras must have shape \(80,\).*got \(81,\)"),
        ({0: torch.full((30, 80), torch.nan)}, "got 2400 values of NaN or Inf"),
        ({0: torch.eye(30, 80).masked_fill(torch.eye(30, 80) > 0, torch.inf)}, "got 30 values"),
        ({0: torch.eye(30, 80).masked_fill(torch.eye(30, 80) > 0, -torch.inf)}, "got 30 values"),
        ({1: torch.full((30,), 99)}, "no query can be counted, got 30 queries"),
        (
            {0: torch.zeros(30, 0), 2: torch.zeros(0), 4: torch.zeros(0)},
            r"must not be empty, got shape \(30, 0\)",
        ),
    ],
)
def test_bad_input(change, message):
    case = [change.get(i, value) for i, value in enumerate(random_case(10))]
    with pytest.raises(ValueError, match=message):
        retrieval_metrics(*case)


@pytest.mark.parametrize("topk", [(), (0, 1), (-1,)])
def test_bad_topk(topk):
    with pytest.raises(ValueError, match="topk must hold ranks of 1 or more, got"):
        retrieval_metrics(*random_case(11), topk=topk)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("levels", [None, 4])
def test_gpu_equals_cpu(levels):
    distance, *ids = random_case(12, levels=levels)
    assert retrieval_metrics(distance.cuda(), *ids) == retrieval_metrics(distance, *ids)
