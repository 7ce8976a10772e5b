"""Your own images: a folder, with ids from its paths or from a table."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path, PurePosixPath, PureWindowsPath

from lightning.pytorch.utilities import rank_zero_warn

from pplr_lightning.data.datasets import UNKNOWN, ReIDDataset, Sample, Splits
from pplr_lightning.data.files import find_images
from pplr_lightning.data.table_rows import table_rows

NUMBER = re.compile(r"-?\d{1,18}")  # of 64 bits
GROUPS = ("person", "camera", "tracklet", "frame")
ID_COLUMNS = ("person_id", "camera_id", "tracklet_id", "frame")
Names = tuple[str, ...]  # an image's ids as they are written, in the order of the columns


class ImageFolder(ReIDDataset):
    """A folder of person crops with no names to parse: your own images.

    Args:
        root: Training images, searched recursively.
        query: Folder of query images for evaluation; needs `pattern` or `table` to name persons.
        gallery: Folder of gallery images, likewise.
        pattern: Regular expression searched in each path below its folder, with the named groups
            `camera` and, where known, `person`, `tracklet` and `frame`; for instance
            `cam(?P<camera>[0-9]+)/`.
        table: CSV in UTF-8, or Parquet (`.parquet`), such as `pplr crops` writes, with a column
            `path` (relative to the image's folder) and any of the columns `camera_id`,
            `person_id`, `tracklet_id` and `frame`, a row for each image; instead of `pattern`.
            Rows of no image are warned of.
        only_numbers: Refuse ids that are no numbers instead of numbering them, for ids that must
            mean the same beside those of another folder.

    Ids that are no numbers are numbered in sorted order. A tracklet is what a tracker followed
    under one camera; another camera may give its id again. A frame is the number of that of the
    camera's video in which the image was seen: a whole number, 0 or above. Person ids of training
    images are used for analysis only.
    """

    def __init__(
        self,
        root: str | Path,
        *,
        query: str | Path | None = None,
        gallery: str | Path | None = None,
        pattern: str | None = None,
        table: str | Path | None = None,
        only_numbers: bool = False,
    ) -> None:
        if pattern is not None and table is not None:
            raise ValueError(
                "ImageFolder takes its ids from pattern or from table: give one of them"
            )
        self.root = Path(root)
        self.query = None if query is None else Path(query)
        self.gallery = None if gallery is None else Path(gallery)
        self.pattern = None if pattern is None else _compile(pattern)
        self.table = None if table is None else Path(table)
        self.only_numbers = only_numbers
        for folder in (self.query, self.gallery):
            if folder is not None and folder.resolve().is_relative_to(self.root.resolve()):
                raise ValueError(
                    f"{folder} lies inside the training folder {self.root}: training would see "
                    "test images; move one of them"
                )

    def load(self) -> Splits:
        """Lists the images of the folders given, with the ids that can be read.

        Raises:
            FileNotFoundError: A folder or the table is missing.
            ValueError: There is no image, or one whose ids cannot be read; or one is of training
                and of test, by a link.
        """
        table = {} if self.table is None else _read_table(self.table)
        folders = (self.root, self.query, self.gallery)
        paths = [[] if folder is None else find_images(folder) for folder in folders]
        named = [
            (path.relative_to(folder).as_posix(), folder)
            for folder, images in zip(folders, paths, strict=True)
            for path in images
            if folder is not None
        ]
        ids = [self._ids(name, folder, table) for name, folder in named]
        if others := sorted(table.keys() - {name for name, _ in named}):
            rank_zero_warn(
                f"{self.table}: {len(others)} rows are of no image here, the first of {others[0]}"
            )
        if self.only_numbers:
            _check_numbers((image for images in paths for image in images), ids)
        _check_frames((image for images in paths for image in images), ids)
        # Over all: the same name, one id.
        numbers = zip(*(_number(names) for names in zip(*ids, strict=True)), strict=True)
        train, query, gallery = (
            [Sample(str(path), *next(numbers)) for path in images] for images in paths
        )
        if any(sample.person_id == UNKNOWN for sample in query):
            raise ValueError(
                f"{self.query}: query images need person ids: give a pattern with the group "
                "(?P<person>...) or a table with the column person_id"
            )
        tested = {Path(sample.path).resolve() for sample in query + gallery}
        both = next((s.path for s in train if tested and Path(s.path).resolve() in tested), None)
        if both is not None:
            raise ValueError(
                f"{both} is a training image and, by a link, a test image: training would see test "
                "images; leave one of the two out"
            )
        # Evaluation leaves out matches from the query's own camera; an unknown one is nobody's.
        query = [s._replace(camera_id=-2) if s.camera_id == UNKNOWN else s for s in query]
        return Splits(train, query, gallery)

    def _ids(self, name: str, folder: Path, table: dict[str, Names]) -> Names:
        """Reads the ids of one image, each an empty string where not known."""
        if self.table is not None:
            if name in table:
                return table[name]
            # Of one path the other's end, whichever folder they begin in.
            ends = (
                (row, sorted([f"/{PureWindowsPath(row).as_posix()}", f"/{name}"], key=len))
                for row in table
            )
            near = next((row for row, (short, long) in ends if long.endswith(short)), None)
            but = "" if near is None else f", but one for {near}"
            raise ValueError(
                f"{self.table}: no row for the image {name}{but}: the column path is relative to "
                f"{folder}, with slashes"
            )
        if self.pattern is None:
            return ("",) * len(GROUPS)
        match = self.pattern.search(name)
        if match is None:
            raise ValueError(f"{name}: does not match the pattern {self.pattern.pattern!r}")
        groups = match.groupdict()
        return tuple(groups.get(group) or "" for group in GROUPS)


def _compile(pattern: str) -> re.Pattern[str]:
    try:
        compiled = re.compile(pattern)
    except re.error as error:
        raise ValueError(f"pattern {pattern!r} is no regular expression: {error}") from error
    if not {*GROUPS} & set(compiled.groupindex):
        groups = ", ".join(f"(?P<{group}>...)" for group in GROUPS)
        raise ValueError(f"pattern {pattern!r} has none of the groups {groups}")
    return compiled


def _read_table(path: Path) -> dict[str, Names]:
    table: dict[str, Names] = {}
    for where, row in table_rows(path, ("path", *ID_COLUMNS), _check_columns):
        name = PurePosixPath(row["path"]).as_posix()  # ./1.png is 1.png
        if name in table:
            raise ValueError(f"{where}: a second row for {name}; take one of them out")
        table[name] = tuple(_id(row.get(column)) for column in ID_COLUMNS)
    return table


def _check_columns(path: Path, columns: list[str]) -> None:
    if "path" not in columns or not {*ID_COLUMNS} & {*columns}:
        raise ValueError(
            f"{path}: needs the column path and one of {', '.join(ID_COLUMNS)}, has "
            f"{sorted(columns)}"
        )


def _id(value: str | None) -> str:
    """Takes an id as it stands; pandas writes whole numbers beside missing ones as 1.0."""
    return re.sub(r"^(-?\d+)\.0*$", r"\1", (value or "").strip())


def _check_numbers(paths: Iterable[Path], ids: Iterable[Names]) -> None:
    for path, (person, camera, *_) in zip(paths, ids, strict=True):
        for kind, name in (("person", person), ("camera", camera)):
            if name and not NUMBER.fullmatch(name):
                raise ValueError(
                    f"{path}: the {kind} {name!r} is no number: ids must mean the same in every "
                    "file that a gallery is made of; have the pattern or the table give numbers"
                )


def _check_frames(paths: Iterable[Path], ids: Iterable[Names]) -> None:
    for path, (*_, frame) in zip(paths, ids, strict=True):
        if frame and (not NUMBER.fullmatch(frame) or int(frame) < 0):
            raise ValueError(f"{path}: the frame {frame!r} is no whole number of 0 or above")


def _number(names: Iterable[str]) -> list[int]:
    """Turns names into ids: numbers stay, other names are numbered sorted, none is -1."""
    names = list(names)
    known = sorted({name for name in names if name})
    if all(NUMBER.fullmatch(name) for name in known):
        return [int(name) if name else UNKNOWN for name in names]
    number = {name: i for i, name in enumerate(known)}
    return [number.get(name, UNKNOWN) for name in names]
