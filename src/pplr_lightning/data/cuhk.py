"""The sets of CUHK in their first protocols: CUHK01, CUHK02 and CUHK03."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any, Literal

import numpy as np
from lightning.pytorch.utilities import rank_zero_info
from PIL import Image

from pplr_lightning.atomic_write import written_whole
from pplr_lightning.data.datasets import PublishedDataset, Sample, Splits
from pplr_lightning.data.files import find_images
from pplr_lightning.data.matlab import hdf5
from pplr_lightning.data.random_splits import SplitDataset

SOURCE = "ask its authors for it (https://www.ee.cuhk.edu.hk/~xgwang/CUHK_identification.html)"


class CUHK01(SplitDataset):
    """CUHK01 (Li et al., ACCV 2012): 971 people, two images of each under both of two cameras.

    485 people train, the others are tested, drawn by the split's number over 2 and not as in any
    paper: ten divisions, each tested twice. In splits of even numbers the images of the first
    camera are queries, in odd ones those of the second. Its people are in CUHK02, too: do not join
    the two.

    Args:
        root: The folder that holds `campus`, with names as `0001001.png`.
        split: 0 to 19, or `all` for `test`.

    Raises:
        ValueError: There is no such split.
    """

    name = "CUHK01"
    source = SOURCE
    licence = "not known here"
    published = ((1_940, 972, 972),)
    needs = "the folder campus"
    num_splits = 20

    _pattern = re.compile(r"(\d{4})00([1-4])\.")

    def _read(self) -> Splits:
        views: list[dict[str, list[Sample]]] = [{}, {}]
        for image in find_images(self._folder("campus")):
            match = self._match(self._pattern, image, "0001001.png (person, image 1 to 4)")
            camera = (int(match[2]) - 1) // 2
            sample = Sample(str(image), int(match[1]), camera)
            views[camera].setdefault(match[1], []).append(sample)
        return self._two_views(views)


class CUHK02(PublishedDataset):
    """CUHK02 (Li and Wang, CVPR 2013): 1,816 people under five pairs of cameras.

    The pairs `P1` to `P4` train; of `P5` the first camera's images are queries. Both cameras of a
    pair show the same people. Each pair shows others, whose numbers begin anew.

    Args:
        root: The folder `Dataset`, which holds `P1` to `P5`, each with `cam1` and `cam2`.
    """

    name = "CUHK02"
    source = SOURCE
    licence = "not known here"
    published = ((6_308, 478, 478),)
    needs = "the folders P1 to P5, in each cam1 and cam2"

    _pattern = re.compile(r"(\d+)_")

    def _read(self) -> Splits:
        persons: dict[tuple[int, int], int] = {}
        cameras = []
        for camera in range(10):
            pair = camera // 2
            images = find_images(self._folder(f"P{pair + 1}/cam{camera % 2 + 1}"))
            numbers = (int(self._match(self._pattern, one, "001_1.png")[1]) for one in images)
            cameras.append(
                [
                    Sample(str(image), persons.setdefault((pair, number), len(persons)), camera)
                    for image, number in zip(images, numbers, strict=True)
                ]
            )
        *train, query, gallery = cameras
        return Splits([sample for samples in train for sample in samples], query, gallery)


class CUHK03Classic(SplitDataset):
    """CUHK03 (Li et al., CVPR 2014) in its first protocol: 20 divisions, 100 people tested in each.

    All images of the 100 are queries and gallery, of which each query sees one image of each
    person, drawn at random (`single_gallery_shot`): of its own person from the other camera, of
    others from either. In the original protocol all of the gallery is of the other camera; figures
    of the two do not compare. `CUHK03` reads the protocol that is usual today.

    Before the first use the images are written out of `cuhk-03.mat`, which takes h5py, into the
    folder `classic_detected` or `classic_labeled` beside it. Its five pairs of cameras are
    told apart as two cameras, as elsewhere. The authors speak of 1,360 people, and the file holds
    more: all that are not tested train.

    Args:
        root: The folder `cuhk03_release`, which holds `cuhk-03.mat`.
        boxes: People cut out by a detector (`detected`) or by hand (`labeled`).
        split: 0 to 19, or `all` for `test`.

    Raises:
        ValueError: There is no such split, or `boxes` is neither.
    """

    name = "CUHK03"
    source = SOURCE
    licence = "not known here"
    needs = "the file cuhk-03.mat"
    num_splits = 20
    protocol = "single_gallery_shot"

    _pattern = re.compile(r"(\d)_(\d{3})_([12])_\d{2}\.png$")

    def __init__(
        self,
        root: str | Path,
        *,
        boxes: Literal["detected", "labeled"] = "detected",
        split: int | Literal["all"] = 0,
    ) -> None:
        super().__init__(root, split=split)
        if boxes not in ("detected", "labeled"):
            raise ValueError(f"boxes={boxes!r}: CUHK03 has 'detected' and 'labeled'")
        self.boxes = boxes

    @property
    def folder(self) -> Path:
        """Where the images are written to."""
        return self.root / f"classic_{self.boxes}"

    def prepare(self) -> None:
        """Writes the images and the divisions, unless they are there.

        Raises:
            FileNotFoundError: The file is not there.
            ModuleNotFoundError: h5py is not installed.
            ValueError: The file is another.
        """
        if self.folder.is_dir():
            return
        path = self._file("cuhk-03.mat")
        with written_whole(self.folder, folder=True) as folder:
            count = _write_images(path, self.boxes, folder)
        rank_zero_info(f"{count:,} images of {path} are in {self.folder}")

    def _read(self) -> Splits:
        if not self.folder.is_dir():
            self._file("cuhk-03.mat")
            raise FileNotFoundError(f"{self.folder}: not written yet; call prepare() first")
        tested = json.loads((self.folder / "testsets.json").read_text())[self.number]
        tested = {(pair, person) for pair, person in tested}
        train: list[Sample] = []
        test: list[Sample] = []
        persons: dict[tuple[int, int], int] = {}
        for image in find_images(self.folder):
            match = self._match(self._pattern, image, "1_001_1_01.png (pair, person, view, image)")
            key = int(match[1]), int(match[2])
            person = persons.setdefault(key, len(persons))
            (test if key in tested else train).append(Sample(str(image), person, int(match[3]) - 1))
        rank_zero_info(
            f"{self.folder} holds {len(train) + len(test):,} images of {len(persons):,} people; "
            "CUHK03 as published has 13,164 of 1,360"
        )
        return Splits(train, test, test)


def _write_images(path: Path, boxes: str, folder: Path) -> int:
    """Writes the images of `cuhk-03.mat` and its divisions; returns how many images there are."""
    h5py = hdf5()
    try:
        opened = h5py.File(path, "r")
    except OSError as error:  # which would else blame the folder that is written to
        raise ValueError(f"{path}: is not that of CUHK03, of MATLAB 7.3 ({error})") from error
    count = 0
    try:
        with opened as file:
            for pair, cell in enumerate(file[boxes][0], 1):
                for person, images in enumerate(_cell(file, cell), 1):
                    for number, one in enumerate(images, 1):
                        pixels = _cell(file, one)
                        if pixels.ndim < 3:
                            continue  # an empty cell
                        view = 1 if number <= 5 else 2
                        name = f"{pair}_{person:03d}_{view}_{number:02d}.png"
                        Image.fromarray(np.ascontiguousarray(pixels)).save(folder / name)
                        count += 1
            testsets = [_cell(file, cell).astype(int).tolist() for cell in file["testsets"][0]]
    except (KeyError, IndexError, TypeError, ValueError) as error:
        raise ValueError(f"{path}: is not that of CUHK03 ({error})") from error
    (folder / "testsets.json").write_text(json.dumps(testsets))
    return count


def _cell(file: Any, reference: Any) -> Any:
    """Returns what a cell of MATLAB refers to, whose axes HDF5 holds the other way round."""
    return file[reference][()].T
