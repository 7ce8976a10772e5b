from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.utils import parameters_to_vector, vector_to_parameters

from pplr_lightning.networks import PartNetwork
from pplr_lightning.networks.mean_teacher import averaged_copy, follow, warm_momentum

EXACT = {"rtol": 1e-12, "atol": 1e-12}


@pytest.fixture
def arrays():
    with np.load(Path(__file__).parents[1] / "reference/ema.npz") as file:
        return {key: torch.from_numpy(np.asarray(file[key])) for key in file.files}


def student():
    return nn.Sequential(nn.Linear(5, 4), nn.BatchNorm1d(4)).double()


def flat(module):
    return parameters_to_vector(module.parameters()).detach()


def test_equals_the_mean_network_of_mmt(arrays):
    module = student()
    vector_to_parameters(arrays["mmt_student"][0], module.parameters())
    teacher = averaged_copy(module)
    vector_to_parameters(arrays["mmt_mean"][0], teacher.parameters())
    for number, step in enumerate(arrays["mmt_steps"].tolist()):
        momentum = warm_momentum(step, 0.999)
        assert momentum == pytest.approx(arrays["mmt_alpha"][number].item(), abs=1e-15)
        vector_to_parameters(arrays["mmt_student"][number + 1], module.parameters())
        follow(teacher, module, momentum=momentum)
        torch.testing.assert_close(flat(teacher), arrays["mmt_mean"][number + 1], **EXACT)


def test_equals_the_mean_network_of_openunreid_and_keeps_statistics_of_its_own(arrays):
    module = student()
    vector_to_parameters(arrays["openunreid_student"][0], module.parameters())
    teacher = averaged_copy(module)
    for step in range(3):
        vector_to_parameters(arrays["openunreid_student"][step + 1], module.parameters())
        follow(teacher, module, momentum=float(arrays["openunreid_alpha"]))
        torch.testing.assert_close(flat(teacher), arrays["openunreid_mean"][step + 1], **EXACT)
        images = arrays["openunreid_input"][step]
        module(images)
        found = teacher(images)
        torch.testing.assert_close(found, arrays["openunreid_mean_output"][step], **EXACT)
        for one, name in ((module, "student"), (teacher, "mean")):
            expected = arrays[f"openunreid_{name}_running_mean"][step]
            torch.testing.assert_close(one[1].running_mean, expected, **EXACT)


def test_a_copy_of_a_network_is_built_embeds_alike_and_does_not_learn():
    network = PartNetwork("test_resnet", weights=None, num_parts=0, norm_batch_size=4)
    teacher = averaged_copy(network)
    images = torch.randn(4, 3, 64, 32)
    assert torch.equal(teacher(images).features, network(images).features)
    assert not any(parameter.requires_grad for parameter in teacher.parameters())
    assert all(parameter.requires_grad for parameter in network.backbone.parameters())
    assert teacher.state_dict().keys() == network.state_dict().keys()


def test_refused():
    with pytest.raises(ValueError, match=r"momentum must be in \[0, 1\], got 1.5; it is the share"):
        follow(nn.Linear(1, 1), nn.Linear(1, 1), momentum=1.5)
    with pytest.raises(ValueError, match="teacher and student have other parameters"):
        follow(nn.Linear(1, 1), nn.Linear(2, 1), momentum=0.5)
