"""What each option of a training step brings alone, and that it changes nothing.

    python benchmarks/step.py --device cuda
    OMP_NUM_THREADS=1 python benchmarks/step.py --device cpu --backbone resnet18 --batch 32 \
        --image_size 128 64 --no-compile

Trains on one drawn batch, that lies on the device, with the plain step and with each option: its
time, and how far the losses of 20 steps are from those of the plain step, in parts of them (in
float32 rounding alone drives two correct programs apart). After it, grouped batch norm and part
losses beside loops over groups and parts, forth and back. A GPU's time is on the clock on the
wall, the CPU's is that of the processor, so that other work disturbs it less.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from watching import WARM_UP, synchronize

from pplr_lightning import PPLRModule
from pplr_lightning.functional import aals_loss, pglr_loss, softmax_triplet_loss
from pplr_lightning.networks import GroupBatchNorm, PartNetwork
from pplr_lightning.networks.batch_norm import normalise_at_once, normalise_one_by_one

CLUSTERS = 700
ROWS: dict[str, dict[str, bool]] = {
    "plain": {},
    "fused Adam": {"fused": True},
    "bf16": {"bf16": True},
    "channels-last": {"channels_last": True},
    "compiled": {"compile": True},
    "bf16, channels-last": {"bf16": True, "channels_last": True},
    "bf16, compiled": {"bf16": True, "compile": True},
    "all": {"fused": True, "bf16": True, "channels_last": True, "compile": True},
}


def main(arguments: Sequence[str] | None = None) -> None:
    """Measures and prints the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--backbone", default="resnet50.tv_in1k")
    parser.add_argument("--last_stride", type=int, default=1, help="2 for a ViT")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--group", type=int, default=16)
    parser.add_argument("--image_size", type=int, nargs=2, default=(384, 128))
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--lr", type=float, default=1e-4)
    parser.add_argument("--compile", action=argparse.BooleanOptionalAction, default=True)
    options = parser.parse_args(arguments)
    options.device = torch.device(options.device)

    name = torch.cuda.get_device_name() if options.device.type == "cuda" else "CPU"
    height, width = options.image_size
    print(
        f"{name}, torch {torch.__version__}: {options.backbone}, {options.batch} images of "
        f"{height} x {width}, groups of {options.group}\n"
    )
    print("| step | ms | images/s | ratio | GiB | losses differ by |\n|---|---|---|---|---|---|")
    plain: tuple[Tensor, float] | None = None
    for row, chosen in ROWS.items():
        if chosen.get("compile") and not options.compile:
            continue
        losses, seconds, memory = train(options, **chosen)
        plain = plain or (losses, seconds)
        difference = float(((losses - plain[0]).abs() / plain[0]).max())
        print(
            f"| {row} | {1000 * seconds:.1f} | {options.batch / seconds:.0f} | "
            f"{plain[1] / seconds:.2f} | {memory:.2f} | {difference:.0e} |",
            flush=True,
        )
    norms(options)
    part_losses(options)


def train(
    options: argparse.Namespace,
    *,
    fused: bool = False,
    bf16: bool = False,
    channels_last: bool = False,
    compile: bool = False,
) -> tuple[Tensor, float, float]:
    """Returns the losses of all steps, the seconds of one and the GPU's peak memory in GiB."""
    torch.manual_seed(0)
    device = options.device
    network = PartNetwork(
        options.backbone,
        image_size=tuple(options.image_size),
        weights=None,
        last_stride=options.last_stride,
        norm_batch_size=options.group,
        channels_last=channels_last,
        compile=compile,
    )
    module = PPLRModule(network, max_clusters=CLUSTERS)
    parts = network.num_parts
    centroids = F.normalize(torch.randn(CLUSTERS, network.num_features, parts + 1), dim=1)
    module.reset_classifiers(centroids[..., 0], centroids[..., 1:])
    images = torch.randn(options.batch, 3, *options.image_size).to(device)
    targets = (torch.arange(options.batch) // 4).to(device)
    agreement = torch.rand(options.batch, parts).to(device)
    module.to(device)
    parameters = [p for p in module.parameters() if p.requires_grad]
    optimizer = torch.optim.Adam(parameters, lr=options.lr, fused=fused or None)

    def step() -> Tensor:
        optimizer.zero_grad()
        with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
            output = network(images)
        logits, part_logits = module.logits(output)
        rows = part_logits.transpose(1, 2).flatten(0, 1)
        labels = targets.repeat_interleave(parts)
        loss = pglr_loss(logits, part_logits, targets, agreement)
        loss = loss + aals_loss(rows, labels, agreement.flatten())
        loss = loss + softmax_triplet_loss(output.features, targets)
        loss.backward()
        optimizer.step()
        return loss.detach()

    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
    losses = [step() for _ in range(WARM_UP)]
    seconds = timed(lambda: losses.append(step()), device, options.steps - WARM_UP)
    memory = torch.cuda.max_memory_allocated() / 2**30 if device.type == "cuda" else 0.0
    return torch.stack(losses).cpu(), seconds, memory


def timed(work: Callable[[], Any], device: torch.device, times: int) -> float:
    """Returns the seconds of one call."""
    clock = time.perf_counter if device.type == "cuda" else time.process_time
    synchronize(device)
    start = clock()
    for _ in range(times):
        work()
    synchronize(device)
    return (clock() - start) / times


def norms(options: argparse.Namespace) -> None:
    """Compares the two ways to normalise groups, and norms without groups, on typical maps."""
    print("\n| batch norm of maps | no groups, ms | at once | one by one | compiled | differ by |")
    print("|---|---|---|---|---|---|")
    height, width = options.image_size
    groups = options.batch // options.group
    for channels, stride in ((64, 4), (256, 4), (512, 8), (2048, 16)):
        for layout in (torch.contiguous_format, torch.channels_last):
            shape = (options.batch, channels, height // stride, width // stride)
            images = torch.randn(shape, device=options.device).to(memory_format=layout)
            images.requires_grad_()
            norm = GroupBatchNorm(channels, group_size=options.group).to(options.device)
            weight, bias = norm.weight, norm.bias

            def plain(images: Tensor, norm: Any = norm) -> Tensor:
                return F.batch_norm(images, None, None, norm.weight, norm.bias, training=True)

            def at_once(images: Tensor, weight: Any = weight, bias: Any = bias) -> Tensor:
                return normalise_at_once(images, weight, bias, groups, eps=1e-5)[0]

            def one_by_one(images: Tensor, weight: Any = weight, bias: Any = bias) -> Tensor:
                return normalise_one_by_one(images, weight, bias, groups, eps=1e-5)[0]

            ways: list[Callable[[Tensor], Tensor]] = [plain, at_once, one_by_one]
            if options.compile:
                ways.append(torch.compile(at_once, dynamic=False))
            cells = [f"{1000 * _forth_and_back(way, images):.2f}" for way in ways]
            cells += [] if options.compile else [""]
            difference = (at_once(images) - one_by_one(images)).abs().max().item()
            kind = " channels-last" if layout is torch.channels_last else ""
            size = " x ".join(map(str, shape))
            print(f"| {size}{kind} | {' | '.join(cells)} | {difference:.0e} |", flush=True)


def part_losses(options: argparse.Namespace) -> None:
    """Compares the parts' losses at once with a loop over them."""
    parts = 3
    logits = torch.randn(options.batch, CLUSTERS, parts, device=options.device).requires_grad_()
    targets = torch.arange(options.batch, device=options.device) // 4
    agreement = torch.rand(options.batch, parts, device=options.device)

    def loop(logits: Tensor) -> Tensor:
        pairs = zip(logits.unbind(2), agreement.unbind(1), strict=True)
        return torch.stack([aals_loss(part, targets, own) for part, own in pairs]).mean()

    def batched(logits: Tensor) -> Tensor:
        rows = logits.transpose(1, 2).flatten(0, 1)
        labels = targets[:, None].expand(-1, parts).flatten()
        return aals_loss(rows, labels, agreement.flatten())

    seconds = [_forth_and_back(way, logits) for way in (loop, batched)]
    difference = abs((batched(logits) / loop(logits) - 1).item())
    print("\n| part losses | loop, ms | at once | differ by |\n|---|---|---|---|")
    cells = " | ".join(f"{1000 * value:.2f}" for value in seconds)
    print(f"| {parts} parts, {CLUSTERS} clusters | {cells} | {difference:.0e} |")


def _forth_and_back(way: Callable[[Tensor], Tensor], inputs: Tensor, times: int = 5) -> float:
    def work() -> None:
        output = way(inputs)
        output.backward(torch.ones_like(output))
        inputs.grad = None

    for _ in range(2):
        work()
    return min(timed(work, inputs.device, 1) for _ in range(times))


if __name__ == "__main__":
    main()
