"""What an exported ONNX file costs beside the module, by batch size.

    OMP_NUM_THREADS=1 python benchmarks/export.py --backbone resnet50 --image_size 256 128

Random weights, random images; both get the same tensors and give L2-normalised features. Times are
CPU milliseconds of the process an image, all threads together, the least of the rounds; which
comes first changes from round to round.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import onnxruntime
import torch
from torch.nn.functional import normalize

from pplr_lightning.data.transforms import Preprocessing
from pplr_lightning.networks import PartNetwork
from pplr_lightning.sharing.exporter import export_network


def main(arguments: Sequence[str] | None = None) -> dict[int, tuple[float, float]]:
    """Measures both and prints the table: milliseconds of module and file, by batch size."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--backbone", default="resnet50")
    parser.add_argument("--image_size", type=int, nargs=2, default=[256, 128])
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 4, 16, 64])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.threads)
    size = (options.image_size[0], options.image_size[1])
    network = PartNetwork(options.backbone, weights=None, num_parts=0, last_stride=2).eval()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "model.onnx")
        difference = export_network(network, path, format="onnx", preprocessing=Preprocessing(size))
        settings = onnxruntime.SessionOptions()
        settings.intra_op_num_threads = options.threads
        session = onnxruntime.InferenceSession(path, settings, providers=["CPUExecutionProvider"])
    print(f"{options.backbone}, {size[0]} x {size[1]}; the largest difference is {difference:.1e}")
    print("| batch | module, ms an image | ONNX file |\n|---|---|---|")
    found = {}
    with torch.inference_mode():
        for batch in options.batches:
            images = torch.rand(batch, 3, *size)
            pixels = images.numpy()
            works: list[Callable[[], Any]] = [
                lambda images=images: normalize(network(images).features, dim=1),
                lambda pixels=pixels: session.run(None, {"images": pixels}),
            ]
            seconds = [float("inf")] * 2
            for number in range(options.rounds + 1):  # the first warms up
                for which in (0, 1) if number % 2 else (1, 0):
                    start = time.process_time()
                    works[which]()
                    if number:
                        seconds[which] = min(seconds[which], time.process_time() - start)
            module, file = (1000 * each / batch for each in seconds)
            found[batch] = (module, file)
            print(f"| {batch} | {module:.1f} | {file:.1f} |", flush=True)
    return found


if __name__ == "__main__":
    main()
