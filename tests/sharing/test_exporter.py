from __future__ import annotations

import copy
import json
import sys
from pathlib import Path

import pytest
import torch
from torchvision.transforms.v2.functional import normalize

from pplr_lightning import PPLRModule, SimCLRModule
from pplr_lightning.data.transforms import Preprocessing
from pplr_lightning.networks import PartNetwork
from pplr_lightning.sharing import exporter
from pplr_lightning.sharing.exporter import (
    TOLERANCE,
    TestFeature,
    check_destination,
    export_network,
)

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")
SIZE = (64, 32)
pytestmark = pytest.mark.filterwarnings("ignore:.*torch.jit.* is deprecated")
FORMATS = [
    ("onnx", "model.onnx"),
    ("torch", "model.pt2"),
    ("torchscript", "model.torchscript"),
]
# Of whole backbones, which take their time.
PUBLISHED = [FORMATS[0], pytest.param(*FORMATS[1], marks=pytest.mark.slow)]


def make_module(backbone: str = "resnet10t", **options: object) -> PPLRModule:
    """A module whose batch norms have statistics of their own."""
    torch.manual_seed(0)
    given = {"weights": None, "num_parts": 2, "norm_batch_size": 4, **options}
    module = PPLRModule(PartNetwork(backbone, **given), max_clusters=8)
    with torch.no_grad():
        for _ in range(2):
            module.network(torch.randn(4, 3, *SIZE) + 1)
    return module


@pytest.fixture(scope="module")
def module() -> PPLRModule:
    return make_module().double()  # as a run of precision 64 leaves it


@pytest.fixture(scope="module")
def files(module, tmp_path_factory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("export")
    before = copy.deepcopy(module)
    for format, name in FORMATS:
        difference = export_network(
            module.network, folder / name, format=format, preprocessing=Preprocessing(SIZE)
        )
        assert 0 <= difference <= 1e-5
    assert module.training
    for own, old in zip(module.parameters(), before.parameters(), strict=True):
        assert own.dtype == old.dtype == torch.float64
        assert torch.equal(own, old)
    return {format: folder / name for format, name in FORMATS}


def read_metadata(path: Path) -> dict[str, str]:
    if path.suffix == ".onnx":
        return {entry.key: entry.value for entry in onnx.load(path).metadata_props}
    extra = {"metadata.json": ""}
    if path.suffix == ".torchscript":
        torch.jit.load(path, _extra_files=extra)
    else:
        torch.export.load(path, extra_files=extra)
    return json.loads(extra["metadata.json"])


def run_file(path: Path, images: torch.Tensor) -> torch.Tensor:
    if path.suffix == ".pt2":
        return torch.export.load(path).module()(images)
    if path.suffix == ".torchscript":
        return torch.jit.load(path)(images).detach()
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return torch.from_numpy(session.run(["features"], {"images": images.numpy()})[0])


@pytest.mark.parametrize("format", [format for format, _ in FORMATS])
class TestFile:
    @pytest.mark.parametrize("batch", [1, 2, 7])
    def test_gives_the_modules_features_of_any_batch(self, format, batch, files, module):
        images = torch.randn(batch, 3, *SIZE)
        features = run_file(files[format], images)
        expected = copy.deepcopy(module).float().eval()(images)
        assert features.dtype == torch.float32
        assert features.shape == expected.shape == (batch, 512)
        torch.testing.assert_close(features, expected.detach(), rtol=0, atol=1e-5)
        torch.testing.assert_close(features.norm(dim=1), torch.ones(batch))

    def test_tells_what_goes_in_and_comes_out(self, format, files):
        metadata = read_metadata(files[format])
        assert metadata["backbone"] == "resnet10t"
        assert json.loads(metadata["image_size"]) == [64, 32]
        assert json.loads(metadata["mean"]) == [0.485, 0.456, 0.406]
        assert json.loads(metadata["std"]) == [0.229, 0.224, 0.225]
        assert metadata["color_order"] == "RGB"
        assert "bicubic" in metadata["resize"]
        assert metadata["feature"] == "the global feature behind the batch-norm neck, L2-normalised"

    def test_is_alone_and_holds_no_classifier(self, format, files, module):
        path = files[format]
        assert sorted(file.name for file in path.parent.iterdir()) == sorted(n for _, n in FORMATS)
        backbone = sum(weight.nbytes for weight in module.network.backbone.state_dict().values())
        assert path.stat().st_size < 0.55 * backbone  # which is of float64 here


def test_onnx_has_ordinary_batch_norm_and_a_dynamic_batch(files):
    graph = onnx.load(files["onnx"]).graph
    assert {node.domain for node in graph.node} == {""}
    norms = [node for node in graph.node if node.op_type == "BatchNormalization"]
    assert len(norms) == 1  # the neck; those behind a convolution are folded into it
    assert not any(a.name == "training_mode" and a.i for norm in norms for a in norm.attribute)
    for value, name in ((graph.input[0], "images"), (graph.output[0], "features")):
        assert value.name == name
        assert value.type.tensor_type.shape.dim[0].dim_param == "batch"


NORMALIZED = {
    "own": ([0.5] * 3, [0.25] * 3),
    "unit": ([0.0] * 3, [1.0] * 3),
    "imagenet": ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]),
}


@pytest.mark.parametrize(
    ("input", "half"), [("own", True), ("unit", False), ("unit", True), ("imagenet", False)]
)
def test_takes_images_as_a_tracker_gives_them(input, half, tmp_path):
    module = make_module("test_resnet").eval()
    path = tmp_path / "model.torchscript"
    own = Preprocessing(SIZE, (0.5,) * 3, (0.25,) * 3)
    difference = export_network(
        module.network, path, format="torchscript", preprocessing=own, input=input, half=half
    )
    assert (difference <= TOLERANCE) != half
    images = torch.rand(3, 3, *SIZE)
    given = normalize(images, *NORMALIZED[input])
    with torch.no_grad():
        expected = module(normalize(images, *NORMALIZED["own"]))
    features = run_file(path, given.half() if half else given)
    assert features.dtype == torch.float32
    tolerance = exporter.HALF_TOLERANCE if half else 1e-5
    torch.testing.assert_close(features, expected, rtol=0, atol=tolerance)
    metadata = read_metadata(path)
    assert (json.loads(metadata["mean"]), json.loads(metadata["std"])) == NORMALIZED[input]
    assert metadata["value_range"] == "[0, 1]" + (
        "" if input == "unit" else ", then minus mean, divided by std"
    )
    assert metadata["input"].endswith("float16" if half else "float32")


@pytest.mark.slow  # of what tests above hold of other files
def test_onnx_of_half_precision(tmp_path):
    module, path = make_module("test_resnet").eval(), tmp_path / "model.onnx"
    export_network(
        module.network,
        path,
        format="onnx",
        preprocessing=Preprocessing(SIZE),
        input="unit",
        half=True,
    )
    graph = onnx.load(path).graph
    kinds = [value.type.tensor_type.elem_type for value in (*graph.input, *graph.output)]
    assert kinds == [onnx.TensorProto.FLOAT16, onnx.TensorProto.FLOAT]
    weights = sum(weight.nbytes for weight in module.network.backbone.parameters())
    assert path.stat().st_size < 0.6 * weights


class TestOpenVINO:
    """Where it is installed."""

    @pytest.mark.parametrize("half", [False, True])
    def test_folder(self, half, tmp_path):
        openvino = pytest.importorskip("openvino")
        module, path = make_module("test_resnet").eval(), tmp_path / "a_openvino_model"
        path.mkdir()  # empty
        export_network(
            module.network,
            path,
            format="openvino",
            preprocessing=Preprocessing(SIZE),
            input="unit",
            half=half,
        )
        assert sorted(one.name for one in path.iterdir()) == [
            "metadata.json",
            "model.bin",
            "model.xml",
        ]
        assert json.loads((path / "metadata.json").read_text())["mean"] == "[0.0, 0.0, 0.0]"
        images = torch.rand(3, 3, *SIZE)
        options = {"INFERENCE_PRECISION_HINT": "f32"}
        run = openvino.Core().compile_model(path / "model.xml", "CPU", options)
        with torch.no_grad():
            expected = module(normalize(images, *NORMALIZED["imagenet"]))
        features = torch.from_numpy(run(images.numpy())[0])
        tolerance = exporter.HALF_TOLERANCE if half else 1e-5
        torch.testing.assert_close(features, expected, rtol=0, atol=tolerance)

    def test_a_folder_that_holds_something(self, tmp_path):
        path = tmp_path / "a_openvino_model"
        path.mkdir()
        (path / "model.xml").touch()
        with pytest.raises(FileExistsError, match="a_openvino_model: is there already; remove it"):
            check_destination(path, "openvino")

    def test_a_missing_package(self, tmp_path, monkeypatch):
        monkeypatch.setitem(sys.modules, "openvino", None)
        match = r"--format openvino: .*pip install 'pplr-lightning\[openvino\]'"
        with pytest.raises(ImportError, match=match):
            check_destination(tmp_path / "a_openvino_model", "openvino")


@pytest.mark.parametrize(
    ("format", "name", "wrong"),
    [("onnx", "model.onnx", 2 * TOLERANCE), ("torch", "model.pt2", float("nan"))],
)
def test_a_file_that_differs_is_not_written(format, name, wrong, module, tmp_path, monkeypatch):
    right = TestFeature.forward
    monkeypatch.setattr(TestFeature, "forward", lambda self, images: right(self, images) + wrong)
    path = tmp_path / name
    path.write_text("of an earlier export")
    with pytest.raises(ValueError, match=rf"{name}: not written, .* differ .* by (2.0e-04|nan)"):
        export_network(module.network, path, format=format, preprocessing=Preprocessing(SIZE))
    assert path.read_text() == "of an earlier export"
    assert [file.name for file in tmp_path.iterdir()] == [name]


class TestRefuses:
    def refused(self, module, path, error, match, format="torch", size=SIZE):
        with pytest.raises(error, match=match):
            export_network(module.network, path, format=format, preprocessing=Preprocessing(size))
        assert not path.exists()

    def test_another_ending(self, module, tmp_path):
        path = tmp_path / "model.onnx"
        self.refused(
            module, path, ValueError, r"model.onnx: a file of format torch is named \*.pt2"
        )

    def test_a_missing_folder(self, module, tmp_path):
        path = tmp_path / "no/model.pt2"
        self.refused(module, path, FileNotFoundError, r"model.pt2: there is no folder .*/no to")

    @pytest.mark.parametrize("package", ["onnxruntime", "onnxscript"])
    def test_a_missing_package(self, package, module, tmp_path, monkeypatch):
        monkeypatch.setitem(sys.modules, package, None)
        match = rf"{package}.*pip install 'pplr-lightning\[export\]', or use --format torch"
        self.refused(module, tmp_path / "model.onnx", ImportError, match, "onnx")

    def test_what_no_onnx_file_holds(self, module, tmp_path, monkeypatch):
        monkeypatch.setattr(exporter, "ONNX_BYTES", 2**20)
        match = r"GiB of weights, one ONNX file holds less.*use --format torch"
        self.refused(module, tmp_path / "model.onnx", ValueError, match, "onnx")


class TestPublishedBackbones:
    @pytest.mark.parametrize(("format", "name"), PUBLISHED)
    def test_resnet50(self, format, name, tmp_path):
        module = make_module("resnet50.tv_in1k", num_parts=3)
        path = tmp_path / name
        size = Preprocessing((96, 32))
        assert export_network(module.network, path, format=format, preprocessing=size) <= TOLERANCE
        assert path.is_file()

    @pytest.mark.parametrize(("format", "name"), PUBLISHED)
    def test_vit_small(self, format, name, tmp_path):
        module = make_module("vit_small_patch16_224.dino", image_size=SIZE, last_stride=2)
        path = tmp_path / name
        size = Preprocessing(SIZE)
        assert export_network(module.network, path, format=format, preprocessing=size) <= TOLERANCE
        assert path.is_file()


@pytest.mark.parametrize(("format", "name"), FORMATS)
def test_a_network_of_the_fast_options(format, name, tmp_path):
    """Neither the layout nor the compiler is part of a file."""
    module = make_module(channels_last=True)
    fast = PartNetwork(**{**module.network.options, "compile": True})
    fast.load_state_dict(module.network.state_dict())
    module = PPLRModule(fast, max_clusters=8).eval()
    path = tmp_path / name
    export_network(module.network, path, format=format, preprocessing=Preprocessing(SIZE))
    images = torch.randn(3, 3, *SIZE)
    assert torch.allclose(run_file(path, images), module(images), atol=1e-5)


@pytest.mark.parametrize(("format", "name"), FORMATS)
def test_a_network_without_parts(format, name, tmp_path):
    module = make_module("test_resnet", num_parts=0).eval()
    path = tmp_path / name
    export_network(module.network, path, format=format, preprocessing=Preprocessing(SIZE))
    images = torch.randn(3, 3, *SIZE)
    assert torch.allclose(run_file(path, images), module(images), atol=1e-5)


def test_the_weights_that_a_network_is_to_start_from(tmp_path):
    """As the first image would be embedded with them."""
    module = make_module("test_resnet").eval()
    torch.save({"state_dict": module.state_dict()}, tmp_path / "own.ckpt")
    network = PartNetwork(**{**module.network.options, "weights": str(tmp_path / "own.ckpt")})
    path = tmp_path / "model.pt2"
    export_network(network, path, format="torch", preprocessing=Preprocessing(SIZE))
    images = torch.randn(3, 3, *SIZE)
    assert torch.allclose(run_file(path, images), module(images), atol=1e-5)


def test_another_methods_network(tmp_path):
    pytest.importorskip("pytorch_metric_learning")
    module = SimCLRModule(make_module("test_resnet").network, projection_size=8).eval()
    path = tmp_path / "model.pt2"
    export_network(module.network, path, format="torch", preprocessing=Preprocessing(SIZE))
    images = torch.randn(3, 3, *SIZE)
    assert torch.allclose(run_file(path, images), module(images), atol=1e-5)
