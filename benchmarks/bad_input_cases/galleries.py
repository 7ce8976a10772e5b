"""Embeddings and galleries that somebody changed."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from typing import Any

from .bench import Bench, Case, files, some


def gallery_cases(bench: Bench) -> Iterator[Case]:
    """Embeddings and galleries that somebody changed."""
    for what, content in files(bench.embeddings, 2, 10).items():
        path = bench.new() / "odd.parquet"
        path.write_bytes(content)
        new = ["index", f"--embeddings={path}", f"--out={path.parent / 'new'}"]
        add = ["index", f"--index={bench.gallery}", f"--add={path}", f"--out={path.parent / 'new'}"]
        yield Case(f"embeddings {what}", add if len(what) % 3 == 0 else new, ("odd.parquet",))
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = pq.read_table(bench.embeddings)
    columns = {name: table[name] for name in table.column_names}
    changed: dict[str, Any] = {"no column": table.select([]), "no rows": table.slice(0, 0)}
    for number, name in enumerate(columns):
        changed[f"without {name}"] = table.drop_columns([name])
        kinds = (
            ("null", None),
            ("text", "x"),
            ("floats", 0.5),
            ("lists", [math.nan]),
            ("huge", 2**62),
        )
        for what, value in some(kinds, number):
            values = [value] * len(table)
            at = table.column_names.index(name)
            changed[f"{name} of {what}"] = table.set_column(at, name, pa.array(values))
    changed["no metadata"] = table.replace_schema_metadata({})
    for key in table.schema.metadata or {}:
        for value in (b"", b"{}", b"null", b"\xff", b'{"weights": 3}'):
            metadata = {**table.schema.metadata, key: value}
            changed[f"{key!r} {value!r}"] = table.replace_schema_metadata(metadata)
    changed["rows twice"] = pa.concat_tables([table, table])
    for what, content in changed.items():
        path = bench.new() / "odd.parquet"
        pq.write_table(content, path)
        words = ["index", f"--embeddings={path}", f"--out={path.parent / 'new'}"]
        yield Case(f"embeddings {what}", words, ("odd.parquet",))
    for name in ("index.faiss", "items.parquet", "meta.json"):
        for what, content in files(bench.gallery / name, 3, 4).items():
            gallery = bench.copy(bench.gallery)
            (gallery / name).write_bytes(content)
            change = ["index", f"--index={gallery}", f"--add={bench.embeddings}", "--out=new"]
            words = change if len(what) % 3 == 0 else bench.search(gallery=gallery)
            yield Case(
                f"gallery {name} {what}",
                words,
                (str(gallery), "checkpoint", "in the gallery already"),
            )
    meta = json.loads((bench.gallery / "meta.json").read_text())
    for number, field in enumerate(meta):
        for value in some((None, -1, "x", [], {}, math.nan, 2**70), number):
            gallery = bench.copy(bench.gallery)
            (gallery / "meta.json").write_text(json.dumps({**meta, field: value}))
            yield Case(f"gallery {field} {value!r}", bench.search(gallery=gallery), (str(gallery),))
    for number, field in enumerate(meta["fingerprint"]):
        for value in some((None, -1, "x", [], {}), number):
            gallery = bench.copy(bench.gallery)
            fingerprint = {**meta["fingerprint"], field: value}
            (gallery / "meta.json").write_text(json.dumps({**meta, "fingerprint": fingerprint}))
            yield Case(f"gallery fingerprint {field} {value!r}", bench.search(gallery=gallery),
                       (str(gallery), "checkpoint"))  # fmt: skip
