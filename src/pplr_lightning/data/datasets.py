"""What every reader gives: lists of samples; the readers are in the files beside this one."""

from __future__ import annotations

import os
import re
import zlib
from collections.abc import Iterable, Sequence
from filecmp import cmp
from functools import cache
from pathlib import Path
from typing import Literal, NamedTuple

from lightning.pytorch.utilities import rank_zero_info, rank_zero_warn

from pplr_lightning.distributed import all_gather_list, raised_on_all

Protocol = Literal["standard", "single_gallery_shot", "camera_pairs"]  # as of `ReIDRetrieval`
Clothes = Literal["changed", "same"]  # likewise
UNKNOWN = -1  # person, camera or tracklet id, or frame, of an image that names none


class Sample(NamedTuple):
    """One image file with its ids; an id that is not known is -1.

    Images of one camera and one tracklet id are frames of one tracklet: what a tracker followed. An
    image without such an id is a tracklet of its own. Images of one camera and one frame were seen
    at once, and are of different people. Clothes are numbered for each person, where people change
    theirs.
    """

    path: str
    person_id: int
    camera_id: int
    tracklet_id: int = UNKNOWN
    frame: int = UNKNOWN
    clothes_id: int = UNKNOWN


class Splits(NamedTuple):
    """The three lists of a re-ID data set; `query` and `gallery` may both be empty."""

    train: list[Sample]
    query: list[Sample]
    gallery: list[Sample]

    def describe(self) -> str:
        """Counts images, identities and cameras of each list, in one line."""
        return "; ".join(
            f"{name}: {_count(samples)}"
            for name, samples in zip(self._fields, self, strict=True)
            if samples
        )

    def first_frames(self) -> Splits:
        """Leaves of query and gallery one image for each tracklet, its first frame.

        Raises:
            ValueError: The frames of a tracklet are of two people.
        """
        firsts = []
        for samples in (self.query, self.gallery):
            numbers = tracklet_numbers(samples)
            first = first_frames(samples)
            for sample, number in zip(samples, numbers, strict=True):
                if sample.person_id != first[number].person_id:
                    raise ValueError(
                        f"{sample.path} and {first[number].path} are of one tracklet and two "
                        "people: correct their ids, or set evaluation.pool_tracklets to false"
                    )
            firsts.append(first)
        return Splits(self.train, *firsts)

    def matches(
        self, *, same_camera: bool = False, clothes: Clothes | None = None
    ) -> list[list[Sample]]:
        """Lists, of each query, the gallery images that count as its matches.

        They are of its person, of another file, and unless `same_camera` of another camera; where
        `clothes` says so, in other clothes or in the same alone.
        """
        files = iter(file_numbers([*self.query, *self.gallery]))
        queries = list(zip(self.query, files, strict=False))
        images: dict[int, list[tuple[Sample, int]]] = {}
        for sample, file in zip(self.gallery, files, strict=True):
            if sample.person_id != UNKNOWN:
                images.setdefault(sample.person_id, []).append((sample, file))
        return [
            [
                sample
                for sample, file in images.get(query.person_id, [])
                if file != own
                and (same_camera or sample.camera_id != query.camera_id)
                and wears(query, sample, clothes)
            ]
            for query, own in queries
        ]


def wears(query: Sample, sample: Sample, clothes: Clothes | None) -> bool:
    """Tells whether an image of the query's person may match, for what the person wears."""
    same = query.clothes_id == sample.clothes_id != UNKNOWN
    return clothes is None or same == (clothes == "same")


def _count(samples: list[Sample]) -> str:
    persons = {sample.person_id for sample in samples if sample.person_id >= 0}
    cameras = {sample.camera_id for sample in samples if sample.camera_id >= 0}
    tracked = any(sample.tracklet_id != UNKNOWN for sample in samples)
    return (
        f"{len(samples):,} images, {len(persons) or 'unknown'} identities, "
        f"{len(cameras) or 'unknown'} cameras"
        + (f", {max(tracklet_numbers(samples)) + 1:,} tracklets" if tracked else "")
    )


def file_numbers(samples: Iterable[Sample]) -> list[int]:
    """Numbers the files of images; one file has one number, whatever links lead to it."""
    numbers: dict[str, int] = {}
    return [numbers.setdefault(os.path.realpath(one.path), len(numbers)) for one in samples]


def tracklet_numbers(samples: Iterable[Sample]) -> list[int]:
    """Numbers the tracklets of images 0 to T - 1, in the order of their first frames.

    Example:
        >>> ids = [(1, 7), (2, 7), (1, 7), (1, -1), (1, -1)]
        >>> tracklet_numbers(Sample("x.jpg", -1, camera, tracklet) for camera, tracklet in ids)
        [0, 1, 0, 2, 3]
    """
    numbers: dict[object, int] = {}
    keys = (
        row if one.tracklet_id == UNKNOWN else (one.camera_id, one.tracklet_id)
        for row, one in enumerate(samples)
    )
    return [numbers.setdefault(key, len(numbers)) for key in keys]


def first_frames(samples: Sequence[Sample]) -> list[Sample]:
    """Lists the first image of each tracklet, in the order of `tracklet_numbers`."""
    firsts: dict[int, Sample] = {}
    for sample, number in zip(samples, tracklet_numbers(samples), strict=True):
        firsts.setdefault(number, sample)
    return list(firsts.values())


def frame_numbers(samples: Iterable[Sample]) -> list[int]:
    """Numbers the frames in which images were seen; -1 where camera or frame are not known.

    Example:
        >>> seen = [(1, 7), (2, 7), (1, 7), (1, -1), (-1, 7)]
        >>> frame_numbers(Sample("x.jpg", -1, camera, -1, frame) for camera, frame in seen)
        [0, 1, 0, -1, -1]
    """
    numbers: dict[tuple[int, int], int] = {}
    keys = ((one.camera_id, one.frame) for one in samples)
    return [UNKNOWN if UNKNOWN in key else numbers.setdefault(key, len(numbers)) for key in keys]


def check_queries(
    splits: Splits, *, same_camera: bool = False, clothes: Clothes | None = None
) -> None:
    """Warns of queries that no metric can count, and of copies that would be found at once.

    Args:
        splits: The data set; without a gallery there is nothing to check.
        same_camera: Whether matches under the query's own camera count.
        clothes: Whether matches in other clothes count alone, or those in the same.

    Raises:
        ValueError: No query can be counted.
    """
    if not splits.gallery:
        return
    matches = splits.matches(same_camera=same_camera, clothes=clothes)
    if lost := [query for query, found in zip(splits.query, matches, strict=True) if not found]:
        text = (
            f"{len(lost)} of {len(splits.query)} queries have no other gallery image of their "
            f"identity{'' if same_camera else ' under another camera'}"
            f"{'' if clothes is None else f', clothes {clothes}'}"
        )
        if len(lost) == len(splits.query):
            otherwise = "" if same_camera else ", or set evaluation.same_camera to true"
            raise ValueError(
                f"{text}: nothing can be evaluated; check the ids and cameras{otherwise}"
            )
        rank_zero_warn(f"{text}, the first is {lost[0].path}: no metric counts them")
    size = cache(os.path.getsize)
    copies = [
        (query.path, sample.path)
        for query, found in zip(splits.query, matches, strict=True)
        for sample in found
        if size(query.path) == size(sample.path) and cmp(query.path, sample.path, shallow=False)
    ]
    if copies:
        rank_zero_warn(
            f"{len(copies)} matches in the gallery are copies of the query's file, which any "
            "weights find, the first is {1} of {0}: take them out".format(*copies[0])
        )


class ReIDDataset:
    """Base of all readers.

    The constructor touches no file, so that a config can be built and checked on any machine.

    Attributes:
        protocol: Of its evaluation, unless `evaluation.protocol` is another.
        variant: Which of several versions, splits or galleries was read; said beside results.
    """

    protocol: Protocol = "standard"
    variant: str = ""

    def prepare(self) -> None:
        """Writes what must be on disk before `load`; called in one process per node."""

    def load(self) -> Splits:
        """Lists the images.

        Raises:
            FileNotFoundError: A folder or file is missing.
            ValueError: A folder is empty or a file's name cannot be read.
        """
        raise NotImplementedError


class PublishedDataset(ReIDDataset):
    """A data set in one folder, with what is published about it as class attributes.

    Attributes:
        name: What its authors call it.
        source: How to come by it, with the URL.
        licence: The terms in a few words.
        published: Images in train, query and gallery, of each release where they differ; they are
            printed beside the folder's own, as a warning where these are others.
        unit: What is counted: `images`, or of videos `tracklets`.
        withdrawn: Why and when its authors withdrew it; a warning repeats it at every load.
        needs: All that the set consists of, for messages.

    Args:
        root: The folder that holds the set.
    """

    name: str
    source: str = ""
    licence: str = ""
    published: tuple[tuple[int, int, int], ...] = ()
    unit: Literal["images", "tracklets"] = "images"
    withdrawn: str = ""
    needs: str = ""

    def __init__(self, root: str | Path) -> None:
        self.root = Path(root)

    def load(self) -> Splits:
        """Lists the images; says how many there are and how many are published."""
        splits = self._read()
        if self.withdrawn:
            rank_zero_warn(f"{self.name}: {self.withdrawn}")
        if self.published:
            lists = splits if self.unit == "images" else map(first_frames, splits)
            train, query, gallery = map(len, lists)
            found = (train, query, gallery)
            say = rank_zero_info if found in self.published else rank_zero_warn
            say(
                f"{self.root} holds {_numbers(found)} {self.unit} (train, query, gallery); "
                f"{self.name} as published has {' or '.join(map(_numbers, self.published))}"
            )
        return splits

    def _read(self) -> Splits:
        raise NotImplementedError

    def _folder(self, name: str) -> Path:
        """Returns a folder of the set.

        Raises:
            FileNotFoundError: It is not there.
        """
        path = self.root / name
        if not path.is_dir():
            raise self._missing(path, "folder", self.needs)
        return path

    def _file(self, name: str) -> Path:
        """Returns a file of the set, likewise."""
        path = self.root / name
        if not path.is_file():
            raise self._missing(path, "file", self.needs)
        return path

    def _match(self, pattern: re.Pattern[str], image: Path, form: str) -> re.Match[str]:
        """Finds the ids in a file's name.

        Raises:
            ValueError: It is not of the form.
        """
        match = pattern.match(image.name)
        if match is None:
            raise ValueError(
                f"{image}: the name is not of the form {form}; rename or remove the file"
            )
        return match

    def _person(self, image: Path, folder: Path) -> int:
        """Reads the person off the folder below `folder` that an image lies in.

        Raises:
            ValueError: Its name is no number.
        """
        person = image.relative_to(folder).parts[0]
        if not person.isdecimal():
            raise ValueError(
                f"{image}: {folder} has a folder for each person, of a number; {person!r} is none: "
                "move it away"
            )
        return int(person)

    def _missing(self, path: Path, kind: str, needs: str) -> FileNotFoundError:
        """Makes the error for a part that is not there.

        Args:
            path: What was looked for.
            kind: "folder" or "file".
            needs: All that the set consists of.
        """
        source = f"{self.source}; licence: {self.licence}; " if self.source else ""
        return FileNotFoundError(
            f"{path}: no such {kind}; {self.name} has {needs}; {source}"
            "set its root (data.dataset.init_args.root) to the folder that holds them"
        )


def _numbers(counts: tuple[int, int, int]) -> str:
    return " + ".join(f"{count:,}" for count in counts)


def check_same_on_ranks(splits: Splits) -> None:
    """Checks that all ranks have found the same images; a folder may lie elsewhere on each.

    Raises:
        ValueError: They have not; labels of one rank's images would be given to another's.
    """
    images = [[(Path(path).name, *ids) for path, *ids in split] for split in splits]
    digest = zlib.crc32(repr(images).encode(errors="surrogateescape"))
    found = all_gather_list([(digest, splits.describe())])
    with raised_on_all():
        for rank, one in enumerate(found):
            if one != found[0]:
                raise ValueError(
                    f"process {rank} finds other images than process 0 ({one[1]}, not "
                    f"{found[0][1]}): give all of them the same data"
                )
