from __future__ import annotations

import pytest
import torch
import torch.nn.functional as nnf

from pplr_lightning import PPLRModule
from pplr_lightning.data.images import read_image
from pplr_lightning.data.pseudo_labels import PseudoLabels
from pplr_lightning.data.transforms import EvalTransform
from pplr_lightning.functional.losses import pglr_loss
from pplr_lightning.networks import PartNetwork
from pplr_lightning.visualization.view import view_images

from ..generators import generators

TRANSFORM = EvalTransform((64, 32))


@pytest.fixture
def module():
    torch.manual_seed(0)
    network = PartNetwork("resnet10t", weights=None, num_parts=2, norm_batch_size=8)
    module = PPLRModule(network, max_clusters=20)
    module.reset_classifiers(torch.randn(6, 512), torch.randn(6, 512, 2))
    return module


def labels_of(images):
    classes = torch.arange(images) % 7 - 1
    agreement = torch.rand(images, 2, generator=torch.Generator().manual_seed(1))
    return PseudoLabels(classes, {"agreement": agreement})


def view(module, samples, indices):
    labels = labels_of(len(samples))

    def refine(output, rows):
        return module.refine(
            output, labels.classes[rows].clamp(min=0), labels.columns["agreement"][rows]
        )

    return view_images(module.network, samples, indices, TRANSFORM, refine=refine, batch_size=4)


def test_is_what_the_model_makes_of_the_images(module, train):
    indices = [3, 50, 7, 90, 20, 21]
    found = view(module, train, indices)
    assert found.indices.tolist() == indices
    module.eval()
    with torch.no_grad():
        images = torch.stack([TRANSFORM(read_image(train[i].path)) for i in indices])
        output = module.network(images)
        logits, part_logits = module.logits(output)
    close = {"rtol": 1e-4, "atol": 1e-5}
    torch.testing.assert_close(found.features, nnf.normalize(output.features, dim=1), **close)
    expected = nnf.normalize(output.part_features, dim=1)
    torch.testing.assert_close(found.part_features, expected, **close)
    # The refined label is what the loss is the cross entropy with.
    labels = labels_of(len(train))
    clustered = labels.classes[indices] >= 0
    loss = pglr_loss(
        logits[clustered],
        part_logits[clustered],
        labels.classes[indices][clustered],
        labels.columns["agreement"][indices][clustered],
    )
    own = nnf.cross_entropy(logits[clustered], found.refined[clustered])
    torch.testing.assert_close(own, loss, **close)


def test_changes_nothing(module, train):
    state = {name: value.clone() for name, value in module.state_dict().items()
             if isinstance(value, torch.Tensor)}  # fmt: skip
    module.network.backbone.eval()
    modes = [one.training for one in module.modules()]
    before = generators()
    view(module, train, [1, 2, 3, 4, 5])
    assert [one.training for one in module.modules()] == modes
    assert generators() == before
    assert all(torch.equal(module.state_dict()[name], value) for name, value in state.items())


def test_leaves_out_what_cannot_be_read(module, train, odd):
    found = view(module, [*train[:3], *odd], list(range(3 + len(odd))))
    assert len(found.indices) == 3 + len(odd) - 2
    assert len(found.part_features) == len(found.refined) == len(found.indices)
    assert {9, 10}.isdisjoint(found.indices.tolist())  # a text and a missing file
    none = view(module, odd, [6, 7])
    assert none.indices.shape == (0,)
    assert none.features.shape == (0, 512)
    assert none.part_features.shape == (0, 512, 2)
    assert none.refined.shape == (0, 0)


def test_of_a_network_without_parts_that_refines_nothing(train):
    network = PartNetwork("resnet10t", weights=None, num_parts=0, norm_batch_size=8)
    found = view_images(network, train, [4, 5], TRANSFORM)
    assert found.features.shape == (2, 512)
    assert found.part_features.shape == (2, 512, 0)
    assert found.refined is None
