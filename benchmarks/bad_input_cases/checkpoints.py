# ruff: noqa: E501 - tables of input
"""Checkpoints that are none, or whose fields are of another kind, for all who read them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from .bench import Bench, Case, files, some


class Evil:
    """Would make a folder when it is read."""

    def __reduce__(self) -> Any:
        return os.mkdir, ("executed",)


def checkpoint_cases(bench: Bench) -> Iterator[Case]:
    """Checkpoints that are none, or whose fields are of another kind, for all who read them."""

    def readers(path: Path) -> list[tuple[str, list[str]]]:
        return [
            ("fit", ["fit", *bench.options(), f"--ckpt_path={path}", "--trainer.max_epochs=2"]),
            ("weights", ["fit", *bench.options(), f"--model.network.weights={path}"]),
            ("validate", ["validate", *bench.options(), f"--ckpt_path={path}"]),
            ("export", ["export", f"--ckpt_path={path}", "--format=torch", "--out=a.pt2"]),
            ("convert", ["convert", str(path), "other.ckpt"]),
            ("predict", [*bench.predict(), f"--ckpt_path={path}"]),
            ("search", bench.search(f"--ckpt_path={path}")),
        ]

    turn = 0
    for what, content in files(bench.checkpoint, 1, 12).items():
        path = bench.new() / "odd.ckpt"
        path.write_bytes(content)
        turn += 1
        reader, words = readers(path)[turn % 7]
        yield Case(f"checkpoint of {reader}: {what}", words, ("odd.ckpt",))
    good = torch.load(bench.checkpoint, weights_only=True)
    weights = {k: v for k, v in good["state_dict"].items() if isinstance(v, torch.Tensor)}
    first = next(iter(weights))
    floats = {k: v for k, v in weights.items() if v.is_floating_point()}
    nan = {k: torch.full_like(v, torch.nan) if k in floats else v for k, v in weights.items()}
    odd: dict[str, Any] = {
        "a list": [1], "a number": 3, "None": None, "a tensor": torch.ones(3), "no field": {},
        "code": {**good, "evil": Evil()}, "weights of NaN": {**good, "state_dict": nan},
        "weights huge": {**good, "state_dict": {k: v * 1e38 if k in floats else v for k, v in weights.items()}},
        "weights of text": {**good, "state_dict": dict.fromkeys(weights, "x")},
        "weights integers": {**good, "state_dict": {k: v.long() for k, v in weights.items()}},
        "weights complex": {**good, "state_dict": {k: v.to(torch.complex64) for k, v in weights.items()}},
        "weights empty": {**good, "state_dict": {k: v[..., :0] if v.ndim else v for k, v in weights.items()}},
        "weights meta": {**good, "state_dict": {k: v.to("meta") for k, v in weights.items()}},
        "weights sparse": {**good, "state_dict": {k: v.to_sparse() if v.ndim == 2 else v for k, v in weights.items()}},
        "one missing": {**good, "state_dict": {k: v for k, v in weights.items() if k != first}},
        "one surplus": {**good, "state_dict": {**weights, "nope": torch.ones(2)}},
        "one transposed": {**good, "state_dict": {k: v.T if v.ndim == 2 else v for k, v in weights.items()}},
        "keys numbers": {**good, "state_dict": dict(enumerate(weights.values()))},
        "no options": {k: v for k, v in good.items() if k != "hyper_parameters"},
    }  # fmt: skip
    for number, field in enumerate(good):
        values = some((None, {}, [], "x", -1), number)
        odd |= {f"{field} {value!r}": {**good, field: value} for value in values}
    options = good["hyper_parameters"]
    for number, (name, value) in enumerate(options.items()):
        odd |= {
            f"option {name} {other!r}": {**good, "hyper_parameters": {**options, name: other}}
            for other in some((None, "nope", -1, float("nan"), [], {"x": 1}), number)
            if other != value
        }
    for what, content in odd.items():
        path = bench.new() / "odd.ckpt"
        torch.save(content, path)
        turn += 1
        reader, words = readers(path)[turn % 7]
        yield Case(f"checkpoint of {reader}: {what}", words, ("odd.ckpt", "weights", "finite"))
    fifo = bench.new() / "odd.ckpt"
    os.mkfifo(fifo)
    for reader, words in readers(fifo):
        yield Case(f"checkpoint of {reader}: pipe", words, ("odd.ckpt",))
