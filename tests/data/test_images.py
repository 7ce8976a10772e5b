from __future__ import annotations

import errno
import os

import numpy as np
import pytest
import torch
from PIL import Image, ImageFile, ImageOps
from torchvision.transforms import v2

from pplr_lightning.data.augmentation import TrainTransform
from pplr_lightning.data.datasets import Sample
from pplr_lightning.data.images import (
    BadImageError,
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
    return PseudoLabels(torch.tensor([1, -1, 0]), {"agreement": torch.rand(3, 2)})


def test_a_view_carries_its_label_agreement_and_camera(samples, labels):
    batch = TrainImages(samples, TrainTransform((32, 16)), labels).__getitems__([View(2, 7)])
    assert batch.images.shape == (1, 3, 32, 16)
    assert (batch.indices, batch.targets, batch.cameras) == (2, 0, 7)
    assert torch.equal(batch.columns["agreement"], labels.columns["agreement"][[2]])


def test_pixels_are_a_function_of_the_view(samples, labels):
    images = TrainImages(samples, TrainTransform((32, 16)), labels)
    first, second = images.__getitems__([View(0, 1), View(0, 2)]).images
    torch.rand(5)  # whatever else is drawn in between
    assert torch.equal(first, images.__getitems__([View(0, 1)]).images[0])
    assert not torch.equal(first, second)


def test_so_are_those_of_a_transform_of_ones_own(samples, labels):
    own = v2.Compose([v2.ToImage(), v2.ToDtype(torch.float32), v2.RandomCrop(8)])
    images = TrainImages(samples, own, labels)
    first, second = images.__getitems__([View(0, 1), View(0, 2)]).images
    assert torch.equal(first, images.__getitems__([View(1, 9), View(0, 1)]).images[1])
    assert not torch.equal(first, second)


def test_more_views_are_of_the_same_images(samples, labels):
    images = TrainImages(samples, TrainTransform((32, 16)), labels, 2)
    batch = images.__getitems__([View(0, 1), View(2, 2), View(0, 3), View(2, 4)])
    assert batch.indices.tolist() == [0, 2]
    assert batch.images.shape == (2, 3, 32, 16)
    assert len(batch.columns["agreement"]) == 2
    (second,) = batch.more_views
    plain = TrainImages(samples, TrainTransform((32, 16)), labels)
    assert torch.equal(batch.images, plain.__getitems__([View(0, 1), View(2, 2)]).images)
    assert torch.equal(second, plain.__getitems__([View(0, 3), View(2, 4)]).images)
    assert plain.__getitems__([View(0, 1)]).more_views == ()


def test_a_plain_view_is_that_of_evaluation(samples, labels):
    transform = EvalTransform((32, 16))
    images = TrainImages(samples, TrainTransform((32, 16)), labels, 2, transform)
    batch = images.__getitems__([View(0, 1), View(2, 2), View(0, 3), View(2, 4)])
    assert torch.equal(batch.plain, EvalImages(samples, transform).__getitems__([0, 2]).images)
    assert len(batch.images) == len(batch.more_views[0]) == 2


def test_augmentation_leaves_the_global_generator_alone(samples, labels):
    images = TrainImages(samples, TrainTransform((32, 16)), labels)
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    images.__getitems__([View(0, 1)])
    assert torch.equal(torch.rand(1), expected)


def test_eval_images_tell_queries_from_gallery(samples):
    images = EvalImages(samples, EvalTransform((32, 16)), num_queries=1)
    batch = images.__getitems__([0, 1, 2])
    assert batch.is_query.tolist() == [True, False, False]
    assert batch.person_ids.tolist() == [0, 1, 2]
    assert batch.camera_ids.tolist() == [5, 6, 7]


def test_an_image_that_cannot_be_read_is_marked_and_keeps_its_place(samples, tmp_path):
    (tmp_path / "1.png").write_bytes(b"cut")
    images = ReadableImages(samples, EvalTransform((32, 16)))
    batch = images.__getitems__([0, 1, 2])
    assert batch.indices.tolist() == [0, -1 - 1, 2]
    assert batch.person_ids.tolist() == [0, 1, 2]
    black = EvalTransform((32, 16))(Image.new("RGB", (1, 1)))
    assert torch.equal(batch.images[1], black)
    readable = EvalImages(samples, EvalTransform((32, 16)))
    assert torch.equal(batch.images[[0, 2]], readable.__getitems__([0, 2]).images)
    assert images.__getitems__([2, 0]).indices.tolist() == [2, 0]


@pytest.mark.parametrize("content", [b"", b"not an image", b"\x89PNG\r\n\x1a\n"])
def test_no_image_is_named(tmp_path, content):
    path = tmp_path / "broken.png"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"broken.png: cannot be read as an image"):
        read_image(str(path))


@pytest.mark.parametrize("name", ["turned.png", "turned.jpg", "turned.tif", "turned.webp"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_an_image_is_turned_as_its_exif_data_say(tmp_path, name, orientation):
    stored = Image.fromarray(np.random.default_rng(0).integers(0, 255, (8, 4, 3), np.uint8))
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored.save(tmp_path / name, exif=exif)
    with Image.open(tmp_path / name) as image:
        shown = ImageOps.exif_transpose(image)
    assert read_image(str(tmp_path / name)) == shown
    assert shown.size == ((4, 8) if orientation < 5 else (8, 4))


def test_exif_data_that_are_none_harm_no_pixel(tmp_path):
    path = tmp_path / "odd.png"
    Image.new("RGB", (4, 8), (1, 2, 3)).save(path, exif=b"none at all")
    assert read_image(str(path)).getpixel((0, 0)) == (1, 2, 3)


RAMP = np.tile(np.linspace(0, 65535, 32).astype(np.uint16), (4, 1))


@pytest.mark.parametrize(
    ("name", "pixels"),
    [
        ("16.png", RAMP),
        ("16.tif", RAMP),
        ("32.tif", RAMP.astype(np.int32)),
        ("float.tif", (RAMP >> 8).astype(np.float32) / 255),
    ],
)
def test_more_than_eight_bits_are_scaled(tmp_path, name, pixels):
    Image.fromarray(pixels).save(tmp_path / name)
    found = np.asarray(read_image(str(tmp_path / name)))
    assert np.array_equal(found, (RAMP >> 8).astype(np.uint8)[..., None].repeat(3, 2))


def test_big_endian_tiff(tmp_path):
    image = Image.frombytes("I;16B", (32, 4), RAMP.astype(">u2").tobytes())
    image.save(tmp_path / "b.tif")
    assert read_image(str(tmp_path / "b.tif")).getpixel((31, 0)) == (255, 255, 255)
    assert len(set(read_image(str(tmp_path / "b.tif")).getdata())) == 32


@pytest.mark.parametrize("value", [-0.5, 1.5, np.nan])
def test_floats_of_another_range_are_refused(tmp_path, value):
    Image.fromarray(np.array([[0, value]], np.float32)).save(tmp_path / "odd.tif")
    with pytest.raises(BadImageError, match=r"odd.tif: .* must lie in 0 to 1"):
        read_image(str(tmp_path / "odd.tif"))


@pytest.mark.parametrize("number", [errno.ENOENT, errno.EMFILE, errno.EIO])
def test_errors_of_the_disk_are_no_broken_image(samples, monkeypatch, number):
    def fail(*_):
        raise OSError(number, "reason")

    monkeypatch.setattr(ImageFile.ImageFile, "load", fail)
    with pytest.raises(OSError, match=rf"\[Errno {number}\] reason: '{samples[0].path}'"):
        ReadableImages(samples, EvalTransform((32, 16))).__getitems__([0])


def test_nor_is_a_lack_of_memory(samples, monkeypatch):
    monkeypatch.setattr(ImageFile.ImageFile, "load", lambda *_: bytearray(2**62))
    with pytest.raises(MemoryError):
        read_image(samples[0].path)


@pytest.mark.timeout(30)
def test_a_pipe_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "x.png")
    with pytest.raises(BadImageError, match=r"x\.png: cannot be read .*no regular file"):
        read_image(str(tmp_path / "x.png"))
