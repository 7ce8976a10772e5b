"""Sets of video in folders: PRID 2011, iLIDS-VID, DukeMTMC-VideoReID and LPW.

What is compared in the evaluation is tracklets, each by the mean of its frames.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from torchvision.datasets.folder import IMG_EXTENSIONS

from pplr_lightning.data.datasets import PublishedDataset, Sample, Splits
from pplr_lightning.data.files import is_below
from pplr_lightning.data.market_layout import DukeMTMCreID
from pplr_lightning.data.matlab import read_mat, whole_numbers
from pplr_lightning.data.random_splits import SplitDataset


class PRID2011Video(SplitDataset):
    """PRID 2011 (Hirzer et al., SCIA 2011), multi shot: 178 of its people walk under two cameras.

    Its ten divisions, of 89 people in training, are read from a file that does not come with the
    set: a JSON list of `{"train": [...], "test": [...]}` with folders' names, such as torchreid
    has. The walks under `cam_a` are queries, those under `cam_b` the gallery.

    Args:
        root: The folder `prid_2011`, which holds `multi_shot`, and `splits_prid2011.json`; a folder
            for each person, as `multi_shot/cam_a/person_0001`.
        split: 0 to 9, or `all` for `test`.

    Raises:
        ValueError: There is no such split.
    """

    name = "PRID 2011"
    source = (
        "it was at https://www.tugraz.at/institute/icg/research/team-bischof/lrs/downloads/PRID11"
    )
    licence = "not known here"
    published = ((178, 89, 89),)
    unit = "tracklets"
    needs = "the folders multi_shot/cam_a and multi_shot/cam_b, and splits_prid2011.json"

    def _read(self) -> Splits:
        cameras = [self._folder("multi_shot/cam_a"), self._folder("multi_shot/cam_b")]
        path = self._file("splits_prid2011.json")
        try:
            split = json.loads(path.read_text())[self.number]
            train, test = (_plain_names(split[part]) for part in ("train", "test"))
        except (ValueError, LookupError, TypeError, RecursionError) as error:
            raise ValueError(
                f"{path}: has no split {self.number} of the form "
                '{"train": ["person_0001", ...], "test": [...]}' + f" ({error})"
            ) from error
        if both := {*train} & {*test}:
            raise ValueError(
                f"{path}: in split {self.number} {min(both)} is in train and test, as are "
                f"{len(both)} in all; take each out of one"
            )
        people = {name: person for person, name in enumerate(sorted({*train, *test}))}
        return walks(cameras, people, train, test)


class ILIDSVID(SplitDataset):
    """iLIDS-VID (Wang et al., ECCV 2014): 300 people, who walk under two cameras.

    Its ten divisions, of 150 people in training, come with it. The walks under `cam1` are queries,
    those under `cam2` the gallery.

    Args:
        root: The folder that holds `i-LIDS-VID` and `train-test people splits`; a folder for each
            person, as `i-LIDS-VID/sequences/cam1/person001`.
        split: 0 to 9, or `all` for `test`.

    Raises:
        ValueError: There is no such split.
    """

    name = "iLIDS-VID"
    source = (
        "it was at https://www.eecs.qmul.ac.uk/~xiatian/downloads_qmul_iLIDS-VID_ReID_dataset.html"
    )
    licence = "not known here"
    published = ((300, 150, 150),)
    unit = "tracklets"
    needs = (
        "the folders i-LIDS-VID/sequences/cam1 and cam2, and "
        "train-test people splits/train_test_splits_ilidsvid.mat"
    )

    def _read(self) -> Splits:
        cameras = [self._folder(f"i-LIDS-VID/sequences/cam{number}") for number in (1, 2)]
        names = subfolders(cameras[0])
        path = self._file("train-test people splits/train_test_splits_ilidsvid.mat")
        try:
            # Places among the sorted names, counted from 1; the first half is tested.
            places = whole_numbers(read_mat(path)["ls_set"][self.number]) - 1
            order = [names[place] for place in places if place >= 0]
        except (LookupError, TypeError) as error:
            raise ValueError(
                f"{path}: has no split {self.number} of the {len(names)} people in {cameras[0]}; "
                "unpack the data set again"
            ) from error
        people = {name: person for person, name in enumerate(names)}
        test, train = sorted(order[: len(order) // 2]), sorted(order[len(order) // 2 :])
        return walks(cameras, people, train, test)


class DukeMTMCVideoReID(PublishedDataset):
    """DukeMTMC-VideoReID (Wu et al., CVPR 2018): 1,404 people and 408 others, eight cameras.

    Withdrawn: Duke University took the videos down in 2019, because they had been filmed and
    published against the study's approved protocol. The reader is for results that have to be
    compared with older ones; take another set for new work.

    Args:
        root: The folder that holds `train`, `query` and `gallery`, in each a folder for each person
            and in that one for each tracklet; names as `0001_C6_F0099_X30823.jpg`, or in older
            copies `0001C6F0099X30823.jpg`.
    """

    name = "DukeMTMC-VideoReID"
    source = DukeMTMCreID.source
    licence = DukeMTMCreID.licence
    published = ((2_196, 702, 2_636),)
    unit = "tracklets"
    withdrawn = DukeMTMCreID.withdrawn
    needs = "the folders train, query and gallery"

    _pattern = re.compile(r"(\d+)_?C(\d)_?F\d")

    def _read(self) -> Splits:
        splits: list[list[Sample]] = []
        count = 0
        for split in ("train", "query", "gallery"):
            samples: list[Sample] = []
            for person in subfolders(self._folder(split)):
                for walk in subfolders(self.root / split / person):
                    frames = list_frames(self.root / split / person / walk)
                    form = "0001_C6_F0099_X30823.jpg"
                    ids = {self._match(self._pattern, one, form).groups() for one in frames}
                    if len(ids) > 1:
                        raise ValueError(
                            f"{frames[0].parent}: holds frames of several people or cameras; a "
                            "folder is of one tracklet"
                        )
                    ((name, camera),) = ids
                    samples += tracklet(frames, int(name), int(camera), count)
                    count += 1
            splits.append(samples)
        return Splits(*splits)


class LPW(PublishedDataset):
    """Labeled Pedestrian in the Wild (Song et al., AAAI 2018): 2,731 people, eleven cameras.

    Scenes 2 and 3 train; in scene 1 the walks of view 2 are queries, those of views 1 and 3 the
    gallery. All of a person under a camera is one tracklet. Numbers of people begin anew in each
    scene. The numbers of frames given as published are those of another project's reader,
    not of the paper.

    Args:
        root: The folder `pep_256x128`, which holds `scen1`, `scen2` and `scen3`, in these a folder
            for each view and in that one for each person.
    """

    name = "LPW"
    source = "it was at https://liuyu.us/dataset/lpw/index.html"
    licence = "not known here"
    published = ((418_739, 63_118, 108_690),)
    needs = "the folders scen1, scen2 and scen3"

    def _read(self) -> Splits:
        people: dict[tuple[str, str], int] = {}
        views: dict[tuple[str, str], list[Sample]] = {}
        count = 0
        for scene in ("scen1", "scen2", "scen3"):
            for view in subfolders(self._folder(scene)):
                samples = views[scene, view] = []
                for name in subfolders(self.root / scene / view):
                    person = people.setdefault((scene, name), len(people))
                    frames = list_frames(self.root / scene / view / name)
                    samples += tracklet(frames, person, len(views) - 1, count)
                    count += 1
        for number in (1, 2, 3):
            if ("scen1", f"view{number}") not in views:
                raise self._missing(self.root / f"scen1/view{number}", "folder", self.needs)
        return Splits(
            train=[one for (scene, _), some in views.items() if scene != "scen1" for one in some],
            query=views["scen1", "view2"],
            gallery=views["scen1", "view1"] + views["scen1", "view3"],
        )


def walks(
    cameras: Sequence[Path], people: dict[str, int], train: Iterable[str], test: Iterable[str]
) -> Splits:
    """Lists the walks of people under two cameras, of which the first one's are queries.

    Args:
        cameras: Their folders, which hold one for each person.
        people: Person ids by the folders' names.
        train: Names of the people who train.
        test: Names of those who are tested.

    Raises:
        FileNotFoundError: A walk is not there.
    """

    def of(names: Iterable[str], camera: int) -> list[Sample]:
        return [
            sample
            for name in names
            for sample in tracklet(
                list_frames(cameras[camera] / name),
                people[name],
                camera,
                people[name],
            )
        ]

    train, test = list(train), list(test)
    return Splits(of(train, 0) + of(train, 1), of(test, 0), of(test, 1))


def _plain_names(names: object) -> list[str]:
    """Checks a list of folders' names, each once, none of which leads elsewhere.

    Raises:
        TypeError: It is no list.
        ValueError: A name is none, or is there twice.
    """
    if not isinstance(names, list):
        raise TypeError(f"{str(names)[:40]!r} is no list")
    for name in names:
        if not isinstance(name, str) or not is_below(name) or re.search(r"[/\\]", name):
            raise ValueError(f"{str(name)[:40]!r} is no name of a folder")
    if len({*names}) < len(names):
        raise ValueError("a name is there twice")
    return names


def tracklet(frames: Iterable[Path], person: int, camera: int, number: int) -> list[Sample]:
    """Makes the frames of a tracklet, whose number is its own under its camera."""
    return [Sample(str(frame), person, camera, number) for frame in frames]


def subfolders(folder: Path) -> list[str]:
    """Lists the names of the folders in a folder, sorted, but hidden ones.

    Raises:
        ValueError: There is none.
    """
    names = sorted(one.name for one in os.scandir(folder) if one.is_dir() and one.name[0] != ".")
    if not names:
        raise ValueError(f"{folder}: holds no folder; unpack the data set again")
    return names


def list_frames(folder: Path) -> list[Path]:
    """Lists the images right in a folder, numbers as numbers, but hidden ones.

    Raises:
        FileNotFoundError: There is no such folder.
        ValueError: It holds no image.
    """
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder}: no such folder; unpack the data set again")
    frames = [
        Path(one.path)
        for one in os.scandir(folder)
        if one.name[0] != "." and os.path.splitext(one.name)[1].lower() in IMG_EXTENSIONS
    ]
    if not frames:
        raise ValueError(f"{folder}: the folder holds no image; unpack the data set again")
    return sorted(frames, key=lambda one: (int(one.stem) if one.stem.isdecimal() else 0, one.name))
