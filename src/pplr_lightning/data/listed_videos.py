"""Sets of video whose tracklets stand in lists: MARS and LS-VID."""

from __future__ import annotations

import os
import re
import sys
from bisect import bisect_left
from functools import cache
from pathlib import Path
from typing import Any, Literal

from pplr_lightning.data.datasets import PublishedDataset, Sample, Splits
from pplr_lightning.data.files import is_below, read_utf8
from pplr_lightning.data.matlab import hdf5, read_mat, whole_numbers
from pplr_lightning.data.video_sets import tracklet


class MARS(PublishedDataset):
    """MARS (Zheng et al., ECCV 2016): 1,261 people, six cameras; it extends Market-1501.

    Two galleries are in use, and results say which it was. `all` is that of the authors' code: all
    test tracklets, the queries among them. `without_queries` leaves these out, as torchreid does;
    then 140 queries have no match and do not count. In both, tracklets under the query's own
    camera do not count, nor do those of person -1, which are not read. Person 0 are distractors.

    Args:
        root: The folder that holds `bbox_train`, `bbox_test` and `info`; names as
            `0001C1T0001F001.jpg` (person, camera, tracklet, frame).
        gallery: Which of the two.

    Raises:
        ValueError: There is no such gallery.
    """

    name = "MARS"
    source = (
        "its info is at https://github.com/liangzheng06/MARS-evaluation, which leads to the images"
    )
    licence = "not known here"
    unit = "tracklets"
    needs = (
        "the folders bbox_train and bbox_test, and in info train_name.txt, test_name.txt, "
        "tracks_train_info.mat, tracks_test_info.mat and query_IDX.mat"
    )

    _name = re.compile(r"(\d{4}|00-1)C(\d)T\d{4}F\d{3}\.")

    def __init__(
        self, root: str | Path, *, gallery: Literal["all", "without_queries"] = "all"
    ) -> None:
        super().__init__(root)
        counts = {"all": (8_298, 1_980, 11_310), "without_queries": (8_298, 1_980, 9_330)}
        if gallery not in counts:
            raise ValueError(f"gallery={gallery!r}: MARS has {' and '.join(map(repr, counts))}")
        self.gallery = gallery
        self.published = (counts[gallery],)
        words = {"all": "with the queries", "without_queries": "without the queries"}
        self.variant = f"MARS, gallery {words[gallery]}"

    def _read(self) -> Splits:
        train, test = (self._tracklets(part) for part in ("train", "test"))
        path = self._file("info/query_IDX.mat")
        queries = set((whole_numbers(self._array(path, "query_IDX")) - 1).flatten().tolist())
        if not queries <= set(range(len(test))):
            raise ValueError(f"{path}: names tracklets beyond the {len(test)} of the test")
        return _splits(train, test, queries, in_gallery=self.gallery == "all")

    def _tracklets(self, part: str) -> list[list[Sample]]:
        """Lists the tracklets of training or test, in their order; those of junk are empty."""
        folder = self._folder(f"bbox_{part}")
        names = read_utf8(self._file(f"info/{part}_name.txt")).split()
        path = self._file(f"info/tracks_{part}_info.mat")
        rows = whole_numbers(self._array(path, f"track_{part}_info"))
        held = cache(lambda folder: {*_names(folder)})
        tracklets: list[list[Sample]] = []
        for number, (first, last, person, camera) in enumerate(rows.tolist()):
            if person == -1:
                tracklets.append([])
                continue
            where = f"{path}, row {number + 1}"
            if not 1 <= first <= last <= len(names):
                raise ValueError(
                    f"{where}: lines {first} to {last} of {part}_name.txt, which has {len(names)}"
                )
            frames = names[first - 1 : last]
            for name in frames:
                match = self._name.match(name)
                if match is None or (int(match[1]), int(match[2])) != (person, camera):
                    raise ValueError(
                        f"{where}: is of person {person} under camera {camera}, and names {name}"
                    )
            below = folder / frames[0][:4]
            if absent := [name for name in frames if name not in held(below)]:
                raise FileNotFoundError(
                    f"{below / absent[0]}: no such file, which {where} names; unpack the data set "
                    "again"
                )
            tracklets.append(tracklet((below / name for name in frames), person, camera, number))
        return tracklets

    def _array(self, path: Path, key: str) -> Any:
        try:
            return read_mat(path)[key]
        except KeyError as error:
            raise ValueError(f"{path}: has no {key}; unpack the data set again") from error


class LSVID(PublishedDataset):
    """LS-VID (Li et al., ICCV 2019): 3,772 people, 15 cameras.

    The test list's tracklets are queries where `info_test.mat` says so, and else the gallery. That
    file is read by h5py.

    Args:
        root: The folder that holds `info/list_sequence/list_seq_train.txt`, `list_seq_test.txt` and
            `info/data/info_test.mat`; the lists have a line for each tracklet, of what its frames'
            paths begin with and its person. The third number of a file's name is the camera.
    """

    name = "LS-VID"
    source = "ask its authors for it (https://www.pkuvmc.com/dataset.html)"
    licence = "on request, not known here"
    published = ((2_831, 3_504, 7_829),)
    unit = "tracklets"
    needs = (
        "info/list_sequence/list_seq_train.txt, info/list_sequence/list_seq_test.txt and "
        "info/data/info_test.mat"
    )

    _name = re.compile(r"[^_]+_[^_]+_(\d+)")

    def _read(self) -> Splits:
        train, test = (self._tracklets(part) for part in ("train", "test"))
        path = self._file("info/data/info_test.mat")
        try:
            with hdf5().File(path, "r") as file:
                queries = set((whole_numbers(file["query"][0, :]) - 1).tolist())
        except (KeyError, ValueError, OSError) as error:
            raise ValueError(f"{path}: holds no query ({error})") from error
        if not queries <= set(range(len(test))):
            raise ValueError(f"{path}: names tracklets beyond the {len(test)} of the test")
        return _splits(train, test, queries, in_gallery=False)

    def _tracklets(self, part: str) -> list[list[Sample]]:
        path = self._file(f"info/list_sequence/list_seq_{part}.txt")
        held = cache(_names)
        tracklets = []
        lines = [line for line in read_utf8(path).splitlines() if line.strip()]
        for number, line in enumerate(lines):
            where = f"{path}, line {number + 1}"
            prefix, _, person = line.strip().rpartition(" ")
            if prefix and not is_below(prefix):
                raise ValueError(f"{where}: {prefix!r} leads out of {self.root}; correct the line")
            folder, begin = os.path.split(prefix)
            names = held(self.root / folder)
            start = bisect_left(names, begin) if begin else len(names)
            frames = names[start : bisect_left(names, begin + chr(sys.maxunicode))]
            match = self._name.match(frames[0]) if frames else None
            if match is None or not person.isdecimal():
                raise ValueError(
                    f"{where}: {line.strip()!r} names no frames of the form 0000_000_01_...jpg "
                    "(camera 1) and a person; unpack the data set again"
                )
            paths = (self.root / folder / name for name in frames)
            tracklets.append(tracklet(paths, int(person), int(match[1]), number))
        return tracklets


def _splits(
    train: list[list[Sample]], test: list[list[Sample]], queries: set[int], *, in_gallery: bool
) -> Splits:
    """Takes the queries out of the tracklets of the test, or has them in the gallery, too."""
    gallery = [row for row in range(len(test)) if in_gallery or row not in queries]
    return Splits(
        train=[sample for samples in train for sample in samples],
        query=[sample for row in sorted(queries) for sample in test[row]],
        gallery=[sample for row in gallery for sample in test[row]],
    )


def _names(folder: Path) -> list[str]:
    """Lists a folder's files, sorted; none where there is no folder."""
    return sorted(os.listdir(folder) if folder.is_dir() else ())
