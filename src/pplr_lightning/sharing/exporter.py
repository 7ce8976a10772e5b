"""A network's test feature as a file that runs without this library, compared before it is kept."""

from __future__ import annotations

import copy
import importlib
import io
import json
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn
from torchvision.transforms.v2.functional import normalize

from pplr_lightning.atomic_write import written_whole
from pplr_lightning.data.synthetic import SyntheticReID
from pplr_lightning.data.transforms import MEAN, STD, Preprocessing
from pplr_lightning.evaluation.extraction import unit_features
from pplr_lightning.networks import PartNetwork

Format = Literal["onnx", "torch", "torchscript", "openvino"]
Input = Literal["own", "unit", "imagenet"]
# Trackers know what a file is by these.
SUFFIXES: dict[Format, str] = {
    "onnx": ".onnx",
    "torch": ".pt2",
    "torchscript": ".torchscript",
    "openvino": "_openvino_model",  # a folder
}
METADATA = "metadata.json"  # its name within what is no ONNX file
OPENVINO = "model.xml"  # its name within the folder, beside model.bin
TOLERANCE, HALF_TOLERANCE = 1e-4, 1e-2
ONNX_BYTES = 2**31  # a file of protobuf holds no more
UNIT = ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0))  # mean and deviation that leave [0, 1] as it is


class TestFeature(nn.Module):
    """What of a network makes the L2-normalised test feature (B, D) of images (B, 3, H, W).

    The parts are left out.

    Args:
        network: Copied.
        own: What the network's images go through.
        given: What those go through that come in; the rest is done here.
    """

    scale: Tensor
    shift: Tensor

    def __init__(self, network: PartNetwork, own: Preprocessing, given: Preprocessing) -> None:
        super().__init__()
        self.network = copy.deepcopy(network)
        self.network.num_parts, self.network.part_necks = 0, nn.ModuleList()
        self.as_given = own == given
        mean, std, given_mean, given_std = (
            torch.tensor(values, dtype=torch.float64).view(3, 1, 1)
            for values in (own.mean, own.std, given.mean, given.std)
        )
        self.register_buffer("scale", (given_std / std).float())
        self.register_buffer("shift", ((given_mean - mean) / std).float())
        self.eval()

    def forward(self, images: Tensor) -> Tensor:
        """Computes what `ReIDModule.forward` computes."""
        if not self.as_given:
            images = images * self.scale + self.shift
        return F.normalize(self.network(images).features.float(), dim=1)


def export_network(
    network: PartNetwork,
    path: str | Path,
    *,
    format: Format,
    preprocessing: Preprocessing,
    input: Input = "own",
    half: bool = False,
) -> float:
    """Writes the network's test feature as a function of a batch of any size.

    The file is written aside, compared with the network on random and on drawn images, and only
    then takes its name. What the images have to be like is told in its metadata (`describe`): an
    ONNX model's `metadata_props`, an extra file `metadata.json` of the others.

    Args:
        network: Computed in float32 on the CPU; left as it is.
        path: Of the file, ending in `.onnx`, `.pt2` or `.torchscript`, or of a folder, ending in
            `_openvino_model`.
        format: `onnx`; `torch` for a program of `torch.export`; `torchscript`, traced; `openvino`,
            made of the ONNX model.
        preprocessing: What it was trained with.
        input: What the file takes: images as the network was trained on (`own`), RGB in [0, 1]
            (`unit`), or RGB in [0, 1] that ImageNet's mean and deviation have normalised
            (`imagenet`). The file then does the rest.
        half: Weights and images of float16, the feature's norm and the feature of float32; with
            `openvino` the weights alone, whose runtime chooses what it computes in.

    Returns:
        The largest absolute difference of a feature's coordinate, at most `TOLERANCE`, of half
        precision `HALF_TOLERANCE`.

    Raises:
        FileExistsError: OpenVINO's folder is there and not empty.
        FileNotFoundError: There is no such folder to write into.
        ImportError: A package that writes or runs the format is missing.
        IsADirectoryError: The file's name is that of a folder.
        ValueError: The file's name or the image size does not fit, weights are not finite, or the
            difference is too large.
    """
    path = Path(path)
    check_destination(path, format)
    for name, tensor in network.state_dict().items():
        if isinstance(tensor, Tensor) and not tensor.isfinite().all():
            raise ValueError(
                f"{path}: not written, because the weights of {name} are not finite; take a "
                "checkpoint of before training diverged"
            )
    network = copy.deepcopy(network).cpu().float().eval()
    example = torch.zeros(2, 3, *preprocessing.image_size)
    _try_size(network, example)
    mean, std = {
        "own": (preprocessing.mean, preprocessing.std),
        "unit": UNIT,
        "imagenet": (MEAN, STD),
    }[input]
    given = Preprocessing(preprocessing.image_size, mean, std)
    embedder = TestFeature(network, preprocessing, given)
    dtype = torch.float16 if half and format != "openvino" else torch.float32
    metadata = describe(network, given, dtype)
    content = _WRITERS[format](embedder.to(dtype), example.to(dtype), metadata)
    with written_whole(path, folder=format == "openvino") as aside:
        if format == "openvino":
            _save_openvino(aside, content, metadata, half=half)
        else:
            aside.write_bytes(content)
        run = _RUNNERS[format](aside)
        difference = _compare(lambda images: run(images.to(dtype)), network, preprocessing, given)
        tolerance = HALF_TOLERANCE if half else TOLERANCE
        if not difference <= tolerance:  # NaN is refused, too
            raise ValueError(
                f"{path}: not written, because its features differ from the network's by "
                f"{difference:.1e}, more than {tolerance:.0e}: try "
                + ("without --half" if half else "another --format, or another version of torch")
            )
    return difference


def check_destination(path: Path, format: Format) -> None:
    """Checks before any work that the file can be written.

    Raises:
        FileExistsError: OpenVINO's folder is there and not empty.
        FileNotFoundError: There is no such folder.
        ImportError: A package that the format needs is missing.
        IsADirectoryError: The file's name is that of a folder.
        ValueError: The file's name has another ending than those of its format.
    """
    if not path.name.endswith(SUFFIXES[format]):
        raise ValueError(f"{path}: a file of format {format} is named *{SUFFIXES[format]}")
    if not path.parent.is_dir():
        raise FileNotFoundError(f"{path}: there is no folder {path.parent} to write into")
    if format == "openvino":
        if path.exists() and not (path.is_dir() and not any(path.iterdir())):
            raise FileExistsError(f"{path}: is there already; remove it, or name another folder")
    elif path.is_dir():
        raise IsADirectoryError(f"{path}: is a folder; give the name of a file in it")
    if format == "onnx":
        _require(format, "onnxruntime", "onnxscript")
    elif format == "openvino":
        _require(format, "openvino", "onnxscript")


def describe(
    network: PartNetwork, given: Preprocessing, dtype: torch.dtype = torch.float32
) -> dict[str, str]:
    """Says what goes in and what comes out; lists are JSON.

    Args:
        network: What makes the feature.
        given: What images go through before they come in.
        dtype: Of the images.
    """
    height, width = given.image_size
    normalized = (given.mean, given.std) != UNIT
    return {
        "library": "pplr_lightning",
        "backbone": network.backbone_name,
        "input": f"images (batch, 3, {height}, {width}), {str(dtype).removeprefix('torch.')}",
        "image_size": json.dumps([height, width]),
        "resize": "bicubic, antialiased, to height and width without regard to the aspect ratio",
        "color_order": "RGB",
        "value_range": "[0, 1]" + (", then minus mean, divided by std" if normalized else ""),
        "mean": json.dumps(list(given.mean)),
        "std": json.dumps(list(given.std)),
        "output": f"features (batch, {network.num_features}), float32",
        "feature": "the global feature behind the batch-norm neck, L2-normalised",
        "similarity": "cosine, the dot product of two features",
    }


def _onnx_bytes(embedder: TestFeature, example: Tensor, metadata: dict[str, str]) -> bytes:
    size = sum(tensor.nbytes for tensor in embedder.state_dict().values())
    if size >= ONNX_BYTES:
        raise ValueError(
            f"the model has {size / 2**30:.1f} GiB of weights, one ONNX file holds less than "
            f"{ONNX_BYTES / 2**30:.0f}: use --format torch"
        )
    program = torch.onnx.export(
        embedder,
        (example,),
        dynamo=True,
        input_names=["images"],
        output_names=["features"],
        dynamic_shapes=({0: torch.export.Dim("batch")},),
        verbose=False,
    )
    if program is None:
        raise RuntimeError("torch.onnx.export gave no program")
    program.model.metadata_props.update(metadata)
    return program.model_proto.SerializeToString()


def _torch_bytes(embedder: TestFeature, example: Tensor, metadata: dict[str, str]) -> bytes:
    batch = {0: torch.export.Dim("batch")}
    program = torch.export.export(embedder, (example,), dynamic_shapes=(batch,))
    buffer = io.BytesIO()
    torch.export.save(program, buffer, extra_files={METADATA: json.dumps(metadata, indent=2)})
    return buffer.getvalue()


def _torchscript_bytes(embedder: TestFeature, example: Tensor, metadata: dict[str, str]) -> bytes:
    buffer = io.BytesIO()
    with warnings.catch_warnings(), torch.no_grad():
        # Of TorchScript being deprecated, and of sizes that tracing fixes: the comparison runs
        # batches of other sizes.
        warnings.simplefilter("ignore")
        program = torch.jit.trace(embedder, (example,), check_trace=False)
        torch.jit.save(program, buffer, _extra_files={METADATA: json.dumps(metadata, indent=2)})
    return buffer.getvalue()


_WRITERS: dict[Format, Callable[[TestFeature, Tensor, dict[str, str]], bytes]] = {
    "onnx": _onnx_bytes,
    "torch": _torch_bytes,
    "torchscript": _torchscript_bytes,
    "openvino": _onnx_bytes,
}


def _save_openvino(folder: Path, onnx: bytes, metadata: dict[str, str], *, half: bool) -> None:
    """Reads ONNX by OpenVINO's own reader: its converter `ovc` would report usage."""
    import openvino

    model = openvino.Core().read_model(onnx)
    openvino.save_model(model, folder / OPENVINO, compress_to_fp16=half)
    (folder / METADATA).write_text(json.dumps(metadata, indent=2), encoding="utf-8")


def _onnx_runner(path: Path) -> Callable[[Tensor], Tensor]:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    return lambda images: torch.from_numpy(session.run(None, {"images": images.numpy()})[0])


def _torch_runner(path: Path) -> Callable[[Tensor], Tensor]:
    with path.open("rb") as file:  # a path would have to end in .pt2
        return torch.export.load(file).module()


def _torchscript_runner(path: Path) -> Callable[[Tensor], Tensor]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of TorchScript being deprecated
        return torch.jit.load(path)


def _openvino_runner(path: Path) -> Callable[[Tensor], Tensor]:
    import openvino

    # Where a processor has bfloat16, the runtime else takes it.
    options = {"INFERENCE_PRECISION_HINT": "f32"}
    model = openvino.Core().compile_model(path / OPENVINO, "CPU", options)
    return lambda images: torch.from_numpy(model(images.numpy())[0].copy())


_RUNNERS: dict[Format, Callable[[Path], Callable[[Tensor], Tensor]]] = {
    "onnx": _onnx_runner,
    "torch": _torch_runner,
    "torchscript": _torchscript_runner,
    "openvino": _openvino_runner,
}


def _require(format: Format, *packages: str) -> None:
    extra = "openvino" if format == "openvino" else "export"
    for package in packages:  # torch's exporter imports onnxscript when it starts
        try:
            importlib.import_module(package)
        except ImportError as error:
            raise ImportError(
                f"--format {format}: {error}; pip install 'pplr-lightning[{extra}]', or use "
                "--format torch"
            ) from error


@torch.no_grad()
def _try_size(network: PartNetwork, example: Tensor) -> None:
    """Lets a network refuse images of a size that it was not built for, in its own words."""
    try:
        network(example[:1])
    except RuntimeError as error:  # of a network whose map shrinks to nothing
        height, width = example.shape[2:]
        raise ValueError(f"image_size={height} {width}: too small ({error})") from error


@torch.no_grad()
def _compare(
    run: Callable[[Tensor], Tensor],
    network: PartNetwork,
    own: Preprocessing,
    given: Preprocessing,
) -> float:
    """Returns the largest difference over batches of one, three and five images."""
    random = torch.rand(4, 3, *own.image_size, generator=torch.Generator().manual_seed(0))
    transform = Preprocessing(own.image_size, *UNIT).transform()
    reader = SyntheticReID(train_identities=5, distractors=0, junk=0)
    people = [image for image in reader.images() if image.number == 0]
    drawn = [transform(Image.fromarray(reader.draw(image))) for image in people[:5]]
    differences = []
    for images in (random[:1], random[1:], torch.stack(drawn)):
        features = unit_features(network(normalize(images, [*own.mean], [*own.std])))[0]
        found = run(normalize(images, [*given.mean], [*given.std]))
        differences.append((found - features).abs().max())
    return float(torch.stack(differences).max())
