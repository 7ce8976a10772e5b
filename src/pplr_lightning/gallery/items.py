"""The table of a gallery's images: a row for each, with the id that the index knows it by."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, cast

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from pplr_lightning.gallery.embeddings import ITEMS


def numbered(items: pa.Table, first: int) -> pa.Table:
    """Gives images the ids `first`, `first` + 1, ..., in the column `id`."""
    ids = pa.array(np.arange(first, first + len(items)))
    return pa.table([*(items[name] for name in ITEMS.names), ids], names=[*ITEMS.names, "id"])


def check_paths(new: pa.Table, old: pa.Table | None) -> None:
    """Refuses an image that is there twice, as every path names one image.

    Raises:
        ValueError: A path is twice in `new`, or in `old` already.
    """
    counts = pc.value_counts(new["path"])
    twice = pc.filter(counts.field("values"), pc.greater(counts.field("counts"), 1))
    if len(twice):
        raise ValueError(f"there twice: {_first(twice)}")
    if old is None:
        return
    known = pc.filter(new["path"], pc.is_in(new["path"], old["path"]))
    if len(known):
        raise ValueError(f"in the gallery already: {_first(known)}; remove it first")


def without_paths(items: pa.Table, paths: Collection[str]) -> tuple[pa.Table, NDArray[np.int64]]:
    """Takes images out: those that are left, and the ids of the others.

    Raises:
        ValueError: A path is not there.
    """
    wanted = pa.array(list(paths), pa.string())
    unknown = pc.filter(wanted, pc.invert(pc.is_in(wanted, items["path"])))
    if len(unknown):
        raise ValueError(f"not in the gallery: {_first(unknown)}")
    gone = pc.is_in(items["path"], wanted)
    return items.filter(pc.invert(gone)), items.filter(gone)["id"].to_numpy()


def ids_without(items: pa.Table, cameras: Collection[int]) -> NDArray[np.int64]:
    """Lists the ids of the images of all other cameras, known or not.

    Raises:
        ValueError: There is none, or no image is of such a camera.
    """
    known = items["camera_id"].unique().drop_null().to_pylist()
    if strangers := sorted({*cameras} - {*known}):
        raise ValueError(
            f"without_cameras={sorted(cameras)}: the gallery has no image of {strangers}, but of "
            f"cameras {sorted(known)}"
            if known
            else f"without_cameras={sorted(cameras)}: the gallery's images have no camera ids"
        )
    left_out = pc.is_in(items["camera_id"], pa.array(cameras, pa.int64()))
    left = items["id"].filter(pc.invert(left_out)).to_numpy()
    if not len(left):
        raise ValueError(
            f"without_cameras={sorted(cameras)}: leaves no image to search; leave out fewer"
        )
    return cast(NDArray[np.int64], left)


def _first(paths: Any) -> str:
    more = f" ({len(paths) - 1} more like it)" if len(paths) > 1 else ""
    return f"{paths[0].as_py()}{more}"
