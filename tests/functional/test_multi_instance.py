from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from pplr_lightning.functional import multi_instance_loss, replace_instances

from ..methods.small_runs import read


@pytest.fixture(scope="module")
def arrays():
    return read("dcmip")


@pytest.mark.parametrize(("dtype", "rtol"), [(torch.float64, 1e-12), (torch.float32, 1e-5)])
def test_the_loss_is_that_of_the_published_code(arrays, dtype, rtol):
    raw = arrays["features"].detach().to(dtype, copy=True).requires_grad_()
    slots = int(arrays["slots"])
    instances = arrays["instance_proxies"].to(dtype).unflatten(0, (slots, -1))
    loss = multi_instance_loss(
        F.normalize(raw, dim=1), instances, arrays["targets"], temperature=float(arrays["temp"])
    )
    loss.backward()
    close = {"rtol": rtol, "atol": rtol}
    torch.testing.assert_close(loss, arrays["loss_instance"].to(dtype), **close)
    torch.testing.assert_close(raw.grad, arrays["grad_instance"].to(dtype), **close)


def test_images_take_the_place_of_their_classes_instances():
    torch.manual_seed(0)
    instances, features = torch.randn(3, 4, 5), torch.randn(8, 5)
    targets = torch.tensor([2, 0, 2, 2, 0, 2, 3, 2])
    found = replace_instances(instances, features, targets)
    for one in range(4):
        members = (targets == one).nonzero()[:, 0].tolist()
        for slot in range(3):
            expected = features[members[slot % len(members)]] if members else instances[slot, one]
            assert torch.equal(found[slot, one], expected)


def test_other_clusters_stay_as_in_the_published_code(arrays):
    slots = int(arrays["slots"])
    before = arrays["instance_proxies"].unflatten(0, (slots, -1))
    after = arrays["instance_proxies_after"].unflatten(0, (slots, -1))
    features = F.normalize(arrays["features"], dim=1)
    found = replace_instances(before, features, arrays["targets"])
    seen = arrays["drawn_clusters"]
    others = [one for one in range(before.shape[1]) if one not in seen]
    assert torch.equal(found[:, others], after[:, others])
    for one, rows in zip(seen, arrays["drawn_rows"], strict=True):  # theirs draws with repetition
        own = features[arrays["targets"] == one]
        torch.testing.assert_close(after[:, one], own[rows])
        assert torch.equal(found[:, one], own)


@pytest.mark.parametrize(
    ("instances", "targets", "options", "message"),
    [
        (torch.zeros(2, 3, 5), torch.tensor([0]), {"temperature": 0.1}, "got shapes .1, 4. and"),
        (torch.zeros(2, 3, 4), torch.tensor([3]), {"temperature": 0.1}, "targets"),
        (torch.zeros(2, 3, 4), torch.tensor([0]), {"temperature": 0.0}, "temperature must be abov"),
    ],
)
def test_bad_input(instances, targets, options, message):
    with pytest.raises(ValueError, match=message):
        multi_instance_loss(torch.zeros(1, 4), instances, targets, **options)
