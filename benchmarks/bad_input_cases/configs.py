# ruff: noqa: E501 - tables of input
"""Configs that are none, or hold what no option can be."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

from .bench import Bench, Case

YAMLS: dict[str, bytes] = {
    "empty": b"", "a list": b"- 1\n", "a text": b"data", "a number": b"3", "null": b"null",
    "zeros": b"\0\0\0", "Latin-1": b"data: {cache: \xe9}", "UTF-16": "data: {}".encode("utf-16"),
    "binary": bytes(range(256)), "cut off": b"data: {padding: [", "tabs": b"data:\n\tpadding: 3",
    "a key twice": b"data: {padding: 1, padding: 2}", "section twice": b"data: {}\ndata: {}",
    "octal": b"data: {padding: 010}", "base 60": b"data: {padding: 1:30}",
    "section null": b"data: null", "section a list": b"data: [1]", "section a text": b"data: x",
    "unknown section": b"nope: {}", "unknown option": b"data: {nope: 1}", "number key": b"1: 2",
    "tuple key": b"? [1, 2]\n: 3", "null key": b"~: 3", "tag": b"data: !!python/object:os.x {}",
    "own tag": b"data: !nope {}", "set": b"!!set {a, b}", "binary tag": b"data: !!binary aGk=",
    "itself": b"data: &a\n  padding: *a", "no anchor": b"data: *a", "two documents": b"a: 1\n---\nb: 2",
    "bomb": b"a: &a [x,x,x,x,x,x,x,x,x,x]\n" + b"".join(
        b"%c: &%c [%s]\n" % (c, c, b",".join([b"*%c" % p] * 10)) for p, c in zip(b"abcdefgh", b"bcdefghi", strict=True)
    ),
    "deep": b"data: " + b"[" * 3000 + b"]" * 3000, "deep map": b"{a: " * 2000 + b"}" * 2000,
    "missing interpolation": b"data: {padding: '${nope.x}'}",
    "cyclic interpolation": b"data: {padding: '${data.views}', views: '${data.padding}'}",
    "no environment": b"data: {padding: '${oc.env:NOPE_NOPE}'}",
    "unknown resolver": b"data: {padding: '${nope:x}'}", "half interpolation": b"data: {padding: '${'}",
    "date": b"data: {padding: 2001-01-01}", "NaN": b"data: {padding: .nan}",
    "infinite": b"data: {random_erasing: .inf}", "huge": b"data: {padding: 1" + b"0" * 5000 + b"}",
    "class path": b"data: {dataset: {class_path: 3}}", "class number": b"data: {dataset: 3}",
    "class of another kind": b"data: {dataset: {class_path: pplr_lightning.DBSCAN}}",
    "class not known": b"data: {dataset: {class_path: nope.Nope}}",
    "options a list": b"data: {dataset: {class_path: pplr_lightning.data.Market1501, init_args: [1]}}",
    "options not known": b"data: {dataset: {class_path: pplr_lightning.data.Market1501, init_args: {x: 1}}}",
    "callbacks a number": b"trainer: {callbacks: 3}", "callbacks of null": b"trainer: {callbacks: [null]}",
    "logger a number": b"trainer: {logger: 3}", "surrogate": b'data: {cache: "\\ud800"}',
    "control": b'data: {cache: "\\x00"}', "long line": b"data: {cache: " + b"x" * 100_000 + b"}",
}  # fmt: skip


def config_cases(bench: Bench) -> Iterator[Case]:
    """Configs that are none, or hold what no option can be."""
    for what, content in YAMLS.items():
        for command in ("fit",) if len(what) % 2 else ("validate",):
            file = bench.new() / "odd.yaml"
            file.write_bytes(content)
            words = [command, *bench.options(), f"--config={file}"]
            keys = re.findall(rb"[a-z_]{3,}", content[:200])
            named = tuple(key.decode() for key in keys if key not in (b"data",))
            yield Case(f"config {what}", words, ("odd.yaml", *named, "data: "))
    bomb = bench.new() / "bomb.yaml"
    bomb.write_bytes(b"dataset: 3\n" + YAMLS["bomb"])
    for option in ("data", "data.dataset", "model.network", "optimizer", "trainer"):
        yield Case(f"config bomb as {option}", ["fit", *bench.options(), f"--{option}={bomb}"],
                   ("bomb.yaml", option))  # fmt: skip
    fifo = bench.new() / "pipe.yaml"
    os.mkfifo(fifo)
    loop = bench.new() / "loop.yaml"
    loop.symlink_to(loop)
    for file in (
        fifo,
        loop,
        Path("/"),
        Path("/dev/zero"),
        Path("nope.yaml"),
        Path("/proc/self/mem"),
    ):
        yield Case(f"config {file.name or '/'}", ["fit", *bench.options(), f"--config={file}"],
                   (str(file),))  # fmt: skip
