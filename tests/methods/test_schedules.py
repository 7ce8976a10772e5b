from __future__ import annotations

import io

import pytest
import torch
from torch.optim.lr_scheduler import CosineAnnealingLR, LinearLR, SequentialLR

from pplr_lightning.methods import WarmUpCosine


def optimizer():
    groups = [{"params": [torch.zeros(1, requires_grad=True)], "lr": lr} for lr in (0.1, 0.02)]
    return torch.optim.SGD(groups, lr=1.0)


def rates(made, schedule, epochs):
    found = []
    for _ in range(epochs):
        found.append([group["lr"] for group in made.param_groups])
        made.step()
        schedule.step()
    return torch.tensor(found)


def test_is_torchs_linear_warm_up_and_cosine():
    ours, theirs = optimizer(), optimizer()
    rise = LinearLR(theirs, start_factor=0.01, total_iters=3)
    expected = SequentialLR(theirs, [rise, CosineAnnealingLR(theirs, T_max=7)], milestones=[3])
    schedule = WarmUpCosine(ours, epochs=10, warm_up=3)
    assert torch.allclose(rates(ours, schedule, 10), rates(theirs, expected, 10), atol=1e-8)


def test_stays_at_its_end():
    made = optimizer()
    found = rates(made, WarmUpCosine(made, epochs=3, warm_up=0, end=0.1), 5)
    assert found[0].tolist() == pytest.approx([0.1, 0.02])
    assert found[3:].flatten().tolist() == pytest.approx([0.01, 0.002] * 2)


def test_goes_on_from_its_state():
    made = optimizer()
    schedule = WarmUpCosine(made, epochs=6, warm_up=2)
    rates(made, schedule, 3)
    file = io.BytesIO()
    torch.save(schedule.state_dict(), file)
    file.seek(0)
    again = WarmUpCosine(optimizer(), epochs=6, warm_up=2)
    again.load_state_dict(torch.load(file, weights_only=True))
    assert again.last_epoch == 3
    assert again.share(3) == schedule.share(3)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"epochs": 3, "warm_up": 3}, r"lr_scheduler.warm_up=3: must lie in \[0, epochs=3\)"),
        ({"epochs": 0}, r"lr_scheduler.epochs must be at least 1"),
    ],
)
def test_refused(options, message):
    with pytest.raises(ValueError, match=message):
        WarmUpCosine(optimizer(), **options)
