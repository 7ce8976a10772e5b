from __future__ import annotations

import pytest
import torch
from PIL import Image

from pplr_lightning.data.augmentation import TrainTransform
from pplr_lightning.data.datasets import Sample
from pplr_lightning.data.images import (
    EvalImages,
    ReadableImages,
    TrainImages,
    read_image,
)
from pplr_lightning.data.pseudo_labels import PseudoLabels
from pplr_lightning.data.sampler import View
from pplr_lightning.data.transforms import EvalTransform


@pytest.fixture
def samples(tmp_path):
    generator = torch.Generator().manual_seed(0)
    paths = [tmp_path / f"{i}.png" for i in range(3)]
    for path in paths:
        pixels = torch.randint(0, 255, (32, 16, 3), generator=generator, dtype=torch.uint8)
        Image.fromarray(pixels.numpy()).save(path)
    return [Sample(str(path), i, i + 5) for i, path in enumerate(paths)]


@pytest.fixture
def labels():
    return PseudoLabels(
        torch.tensor([1, -1, 0]), torch.rand(3, 2), torch.rand(2, 4), torch.rand(2, 4, 2)
    )


def test_a_view_carries_its_label_agreement_and_camera(samples, labels):
    item = TrainImages(samples, labels, TrainTransform((32, 16)))[View(2, 7)]
    assert item.images.shape == (3, 32, 16)
    assert (item.indices, item.targets, item.cameras) == (2, 0, 7)
    assert torch.equal(item.columns["agreement"], labels.columns["agreement"][2])


def test_pixels_are_a_function_of_the_view(samples, labels):
    images = TrainImages(samples, labels, TrainTransform((32, 16)))
    first = images[View(0, 1)].images
    torch.rand(5)  # whatever else is drawn in between
    assert torch.equal(first, images[View(0, 1)].images)
    assert not torch.equal(first, images[View(0, 2)].images)


def test_augmentation_leaves_the_global_generator_alone(samples, labels):
    images = TrainImages(samples, labels, TrainTransform((32, 16)))
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    images[View(0, 1)]
    assert torch.equal(torch.rand(1), expected)


def test_eval_images_tell_queries_from_gallery(samples):
    images = EvalImages(samples, EvalTransform((32, 16)), num_queries=1)
    assert [bool(images[i].is_query) for i in range(3)] == [True, False, False]
    assert [int(images[i].person_ids) for i in range(3)] == [0, 1, 2]


def test_an_image_that_cannot_be_read_is_marked_and_keeps_its_place(samples, tmp_path):
    (tmp_path / "1.png").write_bytes(b"cut")
    images = ReadableImages(samples, EvalTransform((32, 16)))
    batch = [images[i] for i in range(3)]
    assert [int(item.indices) for item in batch] == [0, -1 - 1, 2]
    assert [int(item.person_ids) for item in batch] == [0, 1, 2]
    assert all(item.images.shape == (3, 32, 16) for item in batch)
    readable = EvalImages(samples, EvalTransform((32, 16)))
    assert torch.equal(batch[2].images, readable[2].images)


@pytest.mark.parametrize("content", [b"", b"not an image", b"\x89PNG\r\n\x1a\n"])
def test_no_image_is_named(tmp_path, content):
    path = tmp_path / "broken.png"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"broken.png: cannot be read as an image"):
        read_image(str(path))
