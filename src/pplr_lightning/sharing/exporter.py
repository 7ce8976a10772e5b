"""A network's test feature as a file that runs without this library, compared before it is kept."""

from __future__ import annotations

import copy
import io
import json
import types
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

from pplr_lightning.atomic_write import written_whole
from pplr_lightning.data.synthetic import SyntheticReID
from pplr_lightning.data.transforms import Preprocessing
from pplr_lightning.evaluation.extraction import unit_features
from pplr_lightning.networks import PartNetwork

Format = Literal["onnx", "torch"]
SUFFIXES: dict[Format, str] = {"onnx": ".onnx", "torch": ".pt2"}
METADATA = "metadata.json"  # its name within a .pt2 file
TOLERANCE = 1e-4
ONNX_BYTES = 2**31  # a file of protobuf holds no more


class TestFeature(nn.Module):
    """What of a network makes the L2-normalised test feature (B, D) of images (B, 3, H, W).

    The parts are left out.
    """

    def __init__(self, network: PartNetwork) -> None:
        super().__init__()
        self.network = copy.deepcopy(network)
        self.network.num_parts, self.network.part_necks = 0, nn.ModuleList()
        self.eval()

    def forward(self, images: Tensor) -> Tensor:
        """Computes what `ReIDModule.forward` computes."""
        return F.normalize(self.network(images).features.float(), dim=1)


def export_network(
    network: PartNetwork, path: str | Path, *, format: Format, preprocessing: Preprocessing
) -> float:
    """Writes the network's test feature as a function of a batch of any size.

    The file is written aside, compared with the network on random and on drawn images, and only
    then takes its name. What the images have to be like is told in its metadata (`describe`): an
    ONNX model's `metadata_props`, a `.pt2` file's extra file `metadata.json`.

    Args:
        network: Computed in float32 on the CPU; left as it is.
        path: Of the file, ending in `.onnx` or `.pt2`.
        format: `onnx`, or `torch` for a program of `torch.export`.
        preprocessing: What it was trained with.

    Returns:
        The largest absolute difference of a feature's coordinate, at most `TOLERANCE`.

    Raises:
        FileNotFoundError: There is no such folder to write into.
        ImportError: A package that writes or runs ONNX is missing.
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
    write = _onnx_bytes if format == "onnx" else _torch_bytes
    content = write(TestFeature(network), example, describe(network, preprocessing))
    with written_whole(path) as aside:
        aside.write_bytes(content)
        run = (_onnx_runner if format == "onnx" else _torch_runner)(aside)
        difference = _compare(run, network, preprocessing)
        if not difference <= TOLERANCE:  # NaN is refused, too
            raise ValueError(
                f"{path}: not written, because its features differ from the network's by "
                f"{difference:.1e}, more than {TOLERANCE:.0e}: try the other --format, or another "
                "version of torch"
            )
    return difference


def check_destination(path: Path, format: Format) -> None:
    """Checks before any work that the file can be written.

    Raises:
        FileNotFoundError: There is no such folder.
        ImportError: A package that the format needs is missing.
        IsADirectoryError: The file's name is that of a folder.
        ValueError: The file's name has another ending than those of its format.
    """
    if path.suffix != SUFFIXES[format]:
        raise ValueError(f"{path}: a file of format {format} is named *{SUFFIXES[format]}")
    if not path.parent.is_dir():
        raise FileNotFoundError(f"{path}: there is no folder {path.parent} to write into")
    if path.is_dir():
        raise IsADirectoryError(f"{path}: is a folder; give the name of a file in it")
    if format == "onnx":
        _import_onnxruntime()


def describe(network: PartNetwork, preprocessing: Preprocessing) -> dict[str, str]:
    """Says what goes in and what comes out; lists are JSON."""
    height, width = preprocessing.image_size
    return {
        "library": "pplr_lightning",
        "backbone": network.backbone_name,
        "input": f"images (batch, 3, {height}, {width}), float32",
        "image_size": json.dumps([height, width]),
        "resize": "bicubic, antialiased, to height and width without regard to the aspect ratio",
        "color_order": "RGB",
        "value_range": "[0, 1], then minus mean, divided by std",
        "mean": json.dumps(list(preprocessing.mean)),
        "std": json.dumps(list(preprocessing.std)),
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


def _onnx_runner(path: Path) -> Callable[[Tensor], Tensor]:
    runtime = _import_onnxruntime()
    options = runtime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = runtime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    return lambda images: torch.from_numpy(session.run(None, {"images": images.numpy()})[0])


def _torch_runner(path: Path) -> Callable[[Tensor], Tensor]:
    with path.open("rb") as file:  # a path would have to end in .pt2
        return torch.export.load(file).module()


def _import_onnxruntime() -> types.ModuleType:
    try:
        import onnxruntime
        import onnxscript  # noqa: F401 - torch's exporter imports it when it starts
    except ImportError as error:
        raise ImportError(
            f"--format onnx: {error}; pip install 'pplr-lightning[export]', or use --format torch"
        ) from error
    return onnxruntime


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
    run: Callable[[Tensor], Tensor], network: PartNetwork, preprocessing: Preprocessing
) -> float:
    """Returns the largest difference over batches of one, three and five images."""
    size = preprocessing.image_size
    random = torch.randn(4, 3, *size, generator=torch.Generator().manual_seed(0))
    transform = preprocessing.transform()
    reader = SyntheticReID(train_identities=5, distractors=0, junk=0)
    people = [image for image in reader.images() if image.number == 0]
    drawn = [transform(Image.fromarray(reader.draw(image))) for image in people[:5]]
    batches = (random[:1], random[1:], torch.stack(drawn))
    features = [unit_features(network(images))[0] for images in batches]
    differences = [(run(i) - f).abs().max() for i, f in zip(batches, features, strict=True)]
    return float(torch.stack(differences).max())
