# ruff: noqa: E501, RUF001 - tables of input, in other scripts, too
"""Tables of ids for `predict` and `fit`."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from .bench import Bench, Case


def table_cases(bench: Bench) -> Iterator[Case]:
    """Tables of ids for `predict` and `fit`."""
    names = sorted(path.name for path in bench.few.iterdir())
    rows = "".join(f"{name},{n % 3}\n" for n, name in enumerate(names))
    head = "path,camera_id\n"
    good = (head + rows).encode()
    tables: dict[str, bytes] = {
        "empty": b"", "head alone": head.encode(), "no head": rows.encode(),
        "cut off": good[:-9], "Latin-1": good + b"\xe4.png,1\n",
        "UTF-16": good.decode().encode("utf-16"), "UTF-32": good.decode().encode("utf-32"),
        "BOM": b"\xef\xbb\xbf" + good, "zeros": good + b"\0\0\0\0", "binary": bytes(range(256)) * 9,
        "row twice": good + rows.splitlines(keepends=True)[0].encode(),
        "row twice by ./": good + b"./" + rows.splitlines(keepends=True)[0].encode(),
        "a column too many": good + f"{names[0]},1,2\n".encode(),
        "a column too few": good + f"{names[0]}\n".encode(),
        "column twice": good.replace(b"path,camera_id", b"path,camera_id,camera_id"),
        "other columns": good.replace(b"camera_id", b"camera"),
        "no path": good.replace(b"path", b"file"), "semicolons": good.replace(b",", b";"),
        "tabs": good.replace(b",", b"\t"), "quotes": good + b'"a,1\n', "spaces": good.replace(b",", b", "),
        "carriage returns": good.replace(b"\n", b"\r"), "CRLF": good.replace(b"\n", b"\r\n"),
        "words": good.replace(b",1\n", b",first\n"), "NaN": good.replace(b",1\n", b",nan\n"),
        "floats": good.replace(b",1\n", b",1.0\n"), "halves": good.replace(b",1\n", b",1.5\n"),
        "negative": good.replace(b",1\n", b",-7\n"), "huge": good.replace(b",1\n", b",1" + b"0" * 30 + b"\n"),
        "19 digits": good.replace(b",1\n", b",9999999999999999999\n"),
        "other digits": good.replace(b",1\n", ",１\n".encode()), "blank ids": good.replace(b",1\n", b",\n"),
        "missing row": (head + "".join(rows.splitlines(keepends=True)[1:])).encode(),
        "surplus row": good + b"nope.png,1\n", "absolute": good.replace(names[0].encode(), str(bench.few / names[0]).encode()),
        "backslashes": good.replace(names[0].encode(), b"few\\" + names[0].encode()),
        "case": good.replace(b"png", b"PNG"), "long field": good + b"x" * 200_000 + b",1\n",
        "long line": good + b"x," * 100_000 + b"\n", "blank lines": good.replace(b"\n", b"\n\n"),
        "JSON": b'{"path": 1}', "page": b"<html>path,camera_id</html>",
    }  # fmt: skip
    for what, content in tables.items():
        file = bench.new() / "odd.csv"
        file.write_bytes(content)
        yield Case(f"table {what}", bench.predict(f"--data.table={file}"), ("odd.csv", "camera"))
    for what in ("UTF-16", "row twice", "missing row", "huge", "other digits", "words"):
        file = bench.new() / "odd.csv"
        file.write_bytes(tables[what])
        words = [
            "fit", *bench.options(), "--data.dataset=pplr_lightning.data.ImageFolder",
            f"--data.dataset.root={bench.few}", f"--data.dataset.table={file}",
        ]  # fmt: skip
        yield Case(f"table of fit {what}", words, ("odd.csv", "camera"))
    fifo = bench.new() / "pipe.csv"
    os.mkfifo(fifo)
    for file in (fifo, Path("/dev/zero"), Path("/dev/null"), bench.few):
        yield Case(f"table {file}"[:40], bench.predict(f"--data.table={file}"), (str(file),))
