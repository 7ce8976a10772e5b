"""Reading what Weights & Biases wrote offline."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path

from wandb.proto.wandb_internal_pb2 import Record

BLOCK = 32768
HEAD = struct.Struct("<IHB")  # checksum, length, kind: whole, first, middle or last part


def records(file: Path) -> Iterator[Record]:
    """Yields the records of a `.wandb` file, which has the layout of LevelDB's log."""
    data = file.read_bytes()
    assert data[:4] == b":W&B"
    place, parts = 7, []
    while place + HEAD.size <= len(data):
        room = BLOCK - place % BLOCK
        if room < HEAD.size:
            place += room
            continue
        _, length, kind = HEAD.unpack_from(data, place)
        place += HEAD.size
        parts.append(data[place : place + length])
        place += length
        if kind in (1, 4):
            record = Record()
            record.ParseFromString(b"".join(parts))
            parts = []
            yield record
