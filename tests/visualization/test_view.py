from __future__ import annotations

import pytest
import torch
import torch.nn.functional as nnf

from pplr_lightning.data.images import read_image
from pplr_lightning.data.transforms import EvalTransform
from pplr_lightning.functional.losses import pglr_loss
from pplr_lightning.models import PartModel
from pplr_lightning.pseudo_labels import PseudoLabels
from pplr_lightning.visualization.view import view_images

from ..generators import generators

TRANSFORM = EvalTransform((64, 32))


@pytest.fixture
def model():
    torch.manual_seed(0)
    model = PartModel("resnet10t", num_parts=2, norm_batch_size=8, max_clusters=20)
    model.reset_classifiers(torch.randn(6, 512), torch.randn(6, 512, 2))
    return model


def labels_of(images):
    labels = torch.arange(images) % 7 - 1
    agreement = torch.rand(images, 2, generator=torch.Generator().manual_seed(1))
    return PseudoLabels(labels, agreement, torch.empty(6, 0), torch.empty(6, 0, 2))


def view(model, samples, indices):
    return view_images(
        model, samples, indices, TRANSFORM, labels_of(len(samples)), beta=0.5, batch_size=4
    )


def test_is_what_the_model_makes_of_the_images(model, train):
    indices = [3, 50, 7, 90, 20, 21]
    found = view(model, train, indices)
    assert found.indices.tolist() == indices
    model.eval()
    with torch.no_grad():
        output = model(torch.stack([TRANSFORM(read_image(train[i].path)) for i in indices]))
    expected = nnf.normalize(output.part_features, dim=1)
    torch.testing.assert_close(found.part_features, expected, rtol=1e-4, atol=1e-5)
    # The refined label is what the loss is the cross entropy with.
    labels = labels_of(len(train))
    clustered = labels.labels[indices] >= 0
    loss = pglr_loss(
        output.logits[clustered],
        output.part_logits[clustered],
        labels.labels[indices][clustered],
        labels.agreement[indices][clustered],
    )
    own = nnf.cross_entropy(output.logits[clustered], found.refined[clustered])
    torch.testing.assert_close(own, loss, rtol=1e-4, atol=1e-5)


def test_changes_nothing(model, train):
    state = {name: value.clone() for name, value in model.state_dict().items()
             if isinstance(value, torch.Tensor)}  # fmt: skip
    model.backbone.eval()
    modes = [module.training for module in model.modules()]
    before = generators()
    view(model, train, [1, 2, 3, 4, 5])
    assert [module.training for module in model.modules()] == modes
    assert generators() == before
    assert all(torch.equal(model.state_dict()[name], value) for name, value in state.items())


def test_leaves_out_what_cannot_be_read(model, train, odd):
    found = view(model, [*train[:3], *odd], list(range(3 + len(odd))))
    assert len(found.indices) == 3 + len(odd) - 2
    assert len(found.part_features) == len(found.refined) == len(found.indices)
    assert {9, 10}.isdisjoint(found.indices.tolist())  # a text and a missing file
    none = view(model, odd, [6, 7])
    assert none.indices.shape == (0,)
    assert none.part_features.shape == (0, 512, 2)
    assert none.refined.shape == (0, 6)
