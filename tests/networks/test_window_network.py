from __future__ import annotations

import numpy as np
import pytest
import torch

from pplr_lightning.networks import GroupBatchNorm, WindowNetwork
from pplr_lightning.networks.window_network import pool_windows, window_bounds

from ..functional.conftest import REFERENCE


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_a_pyramid_is_pooled_as_the_authors_do(dtype):
    with np.load(REFERENCE / "pyramid.npz") as file:
        arrays = {name: torch.from_numpy(file[name]) for name in file.files}
    stripes = int(arrays["stripes"])
    windows = window_bounds(stripes, "pyramid")
    starts, sizes = arrays["window_start"].tolist(), arrays["window_stripes"].tolist()
    assert windows == [(start, start + size) for start, size in zip(starts, sizes, strict=True)]
    pooled = pool_windows(arrays["feature_map"].to(dtype), windows, stripes, "avg+max")
    tolerance = 1e-12 if dtype == torch.float64 else 1e-5
    torch.testing.assert_close(pooled, arrays["pooled"].to(dtype), rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("height", [24, 10])
def test_stripes_are_those_of_adaptive_pooling(height):
    rows = torch.randn(2, 3, height, 4)
    expected = torch.nn.functional.adaptive_avg_pool2d(rows, (6, 1))[..., 0]
    pooled = pool_windows(rows, window_bounds(6, "stripes"), 6, "avg")
    torch.testing.assert_close(pooled, expected)


def test_stripes_are_tested_as_pooled():
    network = WindowNetwork("test_resnet", weights=None, image_size=(96, 32)).eval()
    images = torch.randn(2, 3, 96, 32)
    features, parts = network(images)
    assert parts.shape == (2, network.num_features, 6)
    torch.testing.assert_close(parts.mean(2), features)  # 6 divides the 6 rows of the map
    assert not any(name.startswith("neck") for name in network.state_dict())


def test_the_whole_of_a_pyramid_is_the_global_feature():
    network = WindowNetwork(
        "test_resnet", weights=None, image_size=(96, 32), windows="pyramid", width=5,
        window_pooling="avg+max", norm_batch_size=4,
    )  # fmt: skip
    features, parts = network(torch.randn(4, 3, 96, 32))
    assert parts.shape == (4, 5, 21)
    assert network.num_features == 5
    assert torch.equal(features, parts[..., -1])
    groups = {norm.group_size for norm in network.modules() if isinstance(norm, GroupBatchNorm)}
    assert groups == {4}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"stripes": 0}, "network.stripes must be at least 1"),
        ({"windows": "all"}, "network.windows='all': choose stripes or pyramid"),
        ({"window_pooling": "max"}, r"network.window_pooling='max': choose avg or avg\+max"),
        ({"width": 0}, "network.width must be at least 1"),
        ({"width": 10**19}, "network.width must be at most 65,536"),
        ({"stripes": 10**19}, "network.stripes must be at most 2,048"),
    ],
)
def test_bad_options(options, message):
    with pytest.raises(ValueError, match=message):
        WindowNetwork("test_resnet", weights=None, image_size=(64, 32), **options)
