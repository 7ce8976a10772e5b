from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.metrics import average_precision_score

from pplr_lightning.evaluation.metric import ReIDRetrieval
from pplr_lightning.evaluation.protocols import DRAWS


def random_images(seed, *, files=False):
    """Features whose products are exact, so that ties are; junk, and queries without a match."""
    rng = np.random.default_rng(seed)
    features = torch.from_numpy(rng.choice([-0.5, 0.5], (7, 4)))
    persons = torch.from_numpy(rng.integers(-1, 8, 70))
    persons[3] = 99
    persons[40:44] = 0
    cameras = torch.from_numpy(rng.integers(0, 3, 70))
    indices = torch.arange(70)
    numbers = torch.from_numpy(rng.integers(0, 40, 70)) if files else indices
    kinds = torch.from_numpy(rng.integers(0, 7, 70))
    return features[kinds], persons, cameras, indices < 15, indices, numbers


def loop(images, protocol, *, same_camera=False, topk=(1, 2, 5), clothes=None, worn=None):
    """Goes through queries and gallery images one by one, by the protocol's definition."""
    features, persons, cameras, is_query, _, files = (one.numpy() for one in images)
    queries, gallery = np.flatnonzero(is_query), np.flatnonzero(~is_query)
    distance = 2 - 2 * features[queries] @ features[gallery].T
    results = {}  # of each group of queries and gallery that is averaged by itself

    def score(group, row, q, images):
        kept = [
            g
            for g in images
            if persons[gallery[g]] != -1
            and not (
                persons[gallery[g]] == persons[q]
                and (
                    files[gallery[g]] == files[q]
                    or (cameras[gallery[g]] == cameras[q] and not same_camera)
                    or (clothes == "changed" and worn[gallery[g]] == worn[q])
                    or (clothes == "same" and worn[gallery[g]] != worn[q])
                )
            )
        ]
        if protocol == "single_gallery_shot":
            numbers = np.random.RandomState(group).rand(len(gallery))
            one = {}
            for g in sorted(kept, key=lambda g: numbers[g]):
                one.setdefault(persons[gallery[g]], g)
            kept = sorted(one.values())
        kept = np.array(kept, dtype=int)
        match = persons[gallery[kept]] == persons[q]
        if persons[q] == -1 or not match.any():
            return
        ranks = 1 + np.flatnonzero(match[np.argsort(row[kept], kind="stable")])
        value = {f"rank-{k}": ranks[0] <= k for k in topk}
        value["mAP"] = average_precision_score(match, -row[kept])
        value["mINP"] = len(ranks) / ranks[-1]
        results.setdefault(group, []).append(value)

    for q, row in zip(queries, distance, strict=True):
        if protocol == "standard":
            score(0, row, q, range(len(gallery)))
        elif protocol == "single_gallery_shot":
            for draw in range(DRAWS):
                score(draw, row, q, range(len(gallery)))
        else:
            for camera in range(3):
                some = [g for g in range(len(gallery)) if cameras[gallery[g]] == camera]
                score((cameras[q], camera), row, q, some)
    means = [
        {name: np.mean([value[name] for value in values]) for name in values[0]}
        for values in results.values()
    ]
    return {name: np.mean([mean[name] for mean in means]) for name in means[0]}


@pytest.mark.parametrize("same_camera", [False, True])
@pytest.mark.parametrize("protocol", ["standard", "single_gallery_shot", "camera_pairs"])
@pytest.mark.parametrize("seed", range(2))
def test_equals_a_plain_loop(seed, protocol, same_camera):
    images = random_images(seed, files=seed % 2 == 1)
    metric = ReIDRetrieval(protocol=protocol, same_camera=same_camera, topk=(1, 2, 5))
    metric.update(*images)
    expected = loop(images, protocol, same_camera=same_camera)
    assert metric.compute() == pytest.approx(expected, abs=1e-12)
    assert len(metric.rankings) == 3


@pytest.mark.parametrize("clothes", ["changed", "same"])
@pytest.mark.parametrize("protocol", ["standard", "single_gallery_shot", "camera_pairs"])
def test_clothes_equal_a_plain_loop(protocol, clothes):
    *images, _ = random_images(5)
    _, persons, *_ = images
    worn = persons * 3 + torch.arange(70) % 3  # two people may not share a number
    metric = ReIDRetrieval(protocol=protocol, clothes=clothes, topk=(1, 2, 5))
    metric.update(*images, clothes=worn)
    images = [*images, torch.arange(70)]
    expected = loop(images, protocol, clothes=clothes, worn=worn.numpy())
    assert metric.compute() == pytest.approx(expected, abs=1e-12)
    assert expected["mAP"] != pytest.approx(loop(images, protocol)["mAP"], abs=1e-3)


def test_clothes_that_are_not_known():
    with pytest.raises(ValueError, match="clothes='changed': it is not known what the people"):
        ReIDRetrieval(clothes="changed").update(*random_images(0))
    with pytest.raises(ValueError, match="clothes='cc': choose one of changed, same, or leave it"):
        ReIDRetrieval(clothes="cc")
    with pytest.raises(ValueError, match="clothes='same' with same_camera=True: what a person"):
        ReIDRetrieval(clothes="same", same_camera=True)


def test_the_protocols_differ_and_draws_repeat():
    values = {}
    for protocol in ("standard", "single_gallery_shot", "camera_pairs"):
        metric = ReIDRetrieval(protocol=protocol)
        metric.update(*random_images(0))
        values[protocol] = metric.compute()
        assert metric.compute() == values[protocol]
    assert len({round(value["mAP"], 3) for value in values.values()}) == 3


def test_bad_protocols():
    with pytest.raises(ValueError, match="protocol='cuhk03': choose one of standard, single_gal"):
        ReIDRetrieval(protocol="cuhk03")
    with pytest.raises(ValueError, match=r"rerank=True: .* camera_pairs never shows at once"):
        ReIDRetrieval(protocol="camera_pairs", rerank=True)
