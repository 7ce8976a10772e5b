from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps
from torch.nn.functional import normalize

from pplr_lightning.data.images import read_image
from pplr_lightning.data.transforms import Preprocessing
from pplr_lightning.evaluation.embedding import as_image, embed_images
from pplr_lightning.networks import PartNetwork

from ..tiny import module

SIZE = Preprocessing((64, 32))


@pytest.fixture(scope="module")
def network():
    return module().network


@pytest.fixture(scope="module")
def paths(drawn):
    return sorted((drawn / "query").iterdir())[:5]


@pytest.fixture(scope="module")
def expected(network, paths):
    return embed_images(network, paths, SIZE)


def pixels(path) -> torch.Tensor:
    return torch.from_numpy(np.array(read_image(str(path))))  # (H, W, 3)


@pytest.mark.parametrize(
    "form",
    [
        str,
        lambda path: read_image(str(path)),
        pixels,
        lambda path: pixels(path).permute(2, 0, 1),
        lambda path: pixels(path) / 255,
        lambda path: pixels(path).permute(2, 0, 1).double() / 255,
        lambda path: pixels(path).numpy()[::-1].copy()[::-1],  # as a flip leaves it
    ],
    ids=["path", "PIL", "HWC", "CHW", "HWC in [0, 1]", "CHW in [0, 1], double", "array"],
)
def test_all_forms_of_an_image_give_one_vector(network, paths, expected, form):
    assert torch.equal(embed_images(network, [form(path) for path in paths], SIZE), expected)


def test_arrays_as_opencv_reads_them(network, paths, expected):
    crops = [np.ascontiguousarray(pixels(path).numpy()[..., ::-1]) for path in paths]
    assert torch.equal(embed_images(network, crops, SIZE, bgr=True), expected)
    assert torch.allclose(embed_images(network, crops[0], SIZE, bgr=True)[0], expected[0])
    assert torch.equal(embed_images(network, np.stack(crops), SIZE, bgr=True), expected)
    assert not torch.allclose(embed_images(network, crops, SIZE), expected)
    # What says its order itself is taken by it.
    assert torch.equal(embed_images(network, paths, SIZE, bgr=True), expected)
    assert torch.equal(embed_images(network, map(pixels, paths), SIZE, bgr=True), expected)
    with pytest.raises(ValueError, match=r"got ndarray for an image: .* array of numbers"):
        embed_images(network, np.array([["a"]]), SIZE)


def test_is_the_evaluations_features(network, paths, expected):
    images = torch.stack([SIZE.transform()(read_image(str(path))) for path in paths])
    with torch.no_grad():
        output = network(images)
    assert torch.equal(expected, normalize(output.features, dim=1))
    parts = embed_images(network, paths, SIZE, kind="parts")
    assert parts.shape == (5, 2 * 96)
    assert torch.allclose(parts[:, 96:] * 2**0.5, normalize(output.part_features[..., 1], dim=1))
    both = embed_images(network, paths, SIZE, kind="both")
    assert torch.allclose(both[:, :96] * 3**0.5, expected)
    assert torch.allclose(both.norm(dim=1), torch.ones(5))


def test_in_batches(network, paths, expected):
    seen = []
    hook = network.backbone.register_forward_pre_hook(lambda _, args: seen.append(len(args[0])))
    found = embed_images(network, iter(paths), SIZE, batch_size=2)
    hook.remove()
    assert seen == [2, 2, 1]
    assert torch.allclose(found, expected, atol=1e-5)


def test_one_image_a_batch_of_them_and_none(network, paths, expected):
    assert torch.allclose(embed_images(network, str(paths[0]), SIZE), expected[:1], atol=1e-5)
    batch = torch.stack([pixels(path) for path in paths])
    assert torch.equal(embed_images(network, batch, SIZE), expected)
    assert embed_images(network, [], SIZE, kind="both").shape == (0, 3 * 96)


def test_without_parts(paths):
    torch.manual_seed(0)
    network = PartNetwork("test_resnet", image_size=(64, 32), weights=None, num_parts=0)
    found = embed_images(network, paths, SIZE)
    images = torch.stack([SIZE.transform()(read_image(str(path))) for path in paths])
    with torch.no_grad():
        expected = normalize(network.eval()(images).features, dim=1)
    assert torch.equal(found, expected)
    assert embed_images(network, [], SIZE).shape == (0, 96)
    assert torch.equal(embed_images(network, paths, SIZE, kind="both"), expected)
    with pytest.raises(ValueError, match="features 'parts': the network has no parts; choose 'gl"):
        embed_images(network, paths, SIZE, kind="parts")


def test_modes_are_left_as_they_were(network, paths, expected):
    network.train()
    network.backbone.bn1.eval()
    try:
        assert torch.equal(embed_images(network, paths, SIZE), expected)
        assert network.neck.training
        assert not network.backbone.bn1.training
    finally:
        network.eval()


def test_other_modes_of_pil(paths):
    grey = read_image(str(paths[0])).convert("L")
    assert as_image(grey).mode == "RGB"
    assert as_image(Image.new("RGBA", (3, 4))).size == (3, 4)


def test_a_picture_is_turned_as_a_file_is(tmp_path):
    for orientation in range(1, 9):
        exif = Image.Exif()
        exif[0x0112] = orientation
        Image.linear_gradient("L").resize((4, 8)).save(tmp_path / "turned.png", exif=exif)
        with Image.open(tmp_path / "turned.png") as image:
            shown = ImageOps.exif_transpose(image).convert("RGB")
            assert as_image(image) == as_image(tmp_path / "turned.png") == shown


def test_a_file_that_is_not_there():
    with pytest.raises(FileNotFoundError, match=r"No such file or directory: 'nowhere.jpg'"):
        as_image("nowhere.jpg")


def test_both_sides_of_three_are_channels_first():
    image = torch.zeros(3, 5, 3, dtype=torch.uint8)
    image[0] = 255
    assert as_image(image).getpixel((0, 0)) == (255, 0, 0)


def test_weights_that_are_not_finite(paths):
    made = module()
    made.network.neck.weight.data[0] = float("nan")
    with pytest.raises(ValueError, match=r"vectors must be finite, .* check the model's weights"):
        made.embed(paths)


@pytest.mark.parametrize("batch_size", [0, -1])
def test_no_images_at_a_time(batch_size):
    made = module()
    with pytest.raises(ValueError, match=f"batch_size must be at least 1, got {batch_size}"):
        made.embed(torch.zeros(2, 3, 8, 8), batch_size=batch_size)


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (torch.zeros(64, 32), r"shape \(64, 32\) for an image: give \(3, H, W\) or \(H, W, 3\)"),
        (torch.zeros(1, 64, 32), r"shape \(1, 64, 32\)"),
        (torch.full((3, 8, 8), 255.0), r"values of 255 to 255 .*: give values in \[0, 1\]"),
        (torch.full((3, 8, 8), -0.1), r"values of -0.1 to"),
        (torch.full((3, 8, 8), float("nan")), "values of nan"),
        (torch.zeros(3, 8, 8, dtype=torch.int32), r"torch.int32 for an image: give uint8"),
        (7, "got int for an image"),
        ("setup.cfg", "setup.cfg: cannot be read as an image"),
        (Image.new("RGB", (0, 5)), "0 x 5 pixels has none"),
        (torch.zeros(3, 0, 5), r"shape \(3, 0, 5\) .* of one pixel or more"),
        (torch.zeros(0, 5, 3, dtype=torch.uint8), r"shape \(0, 5, 3\)"),
        (Image.fromarray(np.full((2, 2), 2, np.float32)), "values of 2 to 2: must lie in 0 to 1"),
    ],
)
def test_what_is_no_image(image, message):
    with pytest.raises(ValueError, match=message):
        as_image(image)
