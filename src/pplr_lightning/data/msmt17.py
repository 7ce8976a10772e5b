"""MSMT17: two folders, and lists that say which image belongs where."""

from __future__ import annotations

import re
from pathlib import Path

from pplr_lightning.data.datasets import PublishedDataset, Sample, Splits, read_utf8


class MSMT17(PublishedDataset):
    """MSMT17 (Wei et al., CVPR 2018): 4,101 people, 15 cameras; V1, or V2 with faces blurred.

    V1 has the folders `train` and `test`, V2 `mask_train_v2` and `mask_test_v2`; V1 is read where
    both are there. In both, `list_train.txt`, `list_val.txt`, `list_query.txt` and
    `list_gallery.txt` hold lines `<person>/<file> <person>`, and the third number of a file's name
    is the camera. Training takes the lists train and val, as published results do. Persons are
    numbered from 0 in training and from 0 again in the test lists.

    Args:
        root: The folder that holds the two folders and the four lists.
    """

    name = "MSMT17"
    source = "ask its authors for it (https://www.pkuvmc.com/dataset.html)"
    licence = "research only, not to be passed on"
    published = ((32_621, 11_659, 82_161),)

    _layouts = (("train", "test"), ("mask_train_v2", "mask_test_v2"))
    _needs = (
        "train and test (V1) or mask_train_v2 and mask_test_v2 (V2), and list_train.txt, "
        "list_val.txt, list_query.txt and list_gallery.txt"
    )
    _pattern = re.compile(r"^\d+_\d+_(\d+)_")

    def _read(self) -> Splits:
        train, test = self._find_folders()
        return Splits(
            train=self._read_list("train", train) + self._read_list("val", train),
            query=self._read_list("query", test),
            gallery=self._read_list("gallery", test),
        )

    def _find_folders(self) -> tuple[Path, Path]:
        layouts = [tuple(self.root / name for name in names) for names in self._layouts]
        # Any folder of a layout tells the version; then the other must be there, too.
        found = [folders for folders in layouts if any(folder.is_dir() for folder in folders)]
        train, test = (found or layouts)[0]
        for folder in (train, test):
            if not folder.is_dir():
                raise self._missing(folder, "folder", self._needs)
        return train, test

    def _read_list(self, split: str, folder: Path) -> list[Sample]:
        path = self.root / f"list_{split}.txt"
        if not path.is_file():
            raise self._missing(path, "file", self._needs)
        lines = read_utf8(path).splitlines()
        samples = [
            self._parse(line, folder, f"{path}, line {number}")
            for number, line in enumerate(lines, start=1)
            if line.strip()
        ]
        if not samples:
            raise ValueError(f"{path}: the list is empty; unpack the data set again")
        twice = len(samples) - len({sample.path for sample in samples})
        if twice:
            raise ValueError(f"{path}: lists {twice} images twice; take their second lines out")
        absent = [sample.path for sample in samples if not Path(sample.path).is_file()]
        if absent:
            raise FileNotFoundError(
                f"{path}: {len(absent)} of {len(samples)} images in the list are not there, the "
                f"first is {absent[0]}; unpack the data set again or take their lines out"
            )
        return samples

    def _parse(self, line: str, folder: Path, where: str) -> Sample:
        name, _, person = line.strip().rpartition(" ")  # a path may hold spaces
        match = self._pattern.match(Path(name).name)
        if match is None or not person.isdecimal():
            raise ValueError(
                f"{where}: {line.strip()!r} is not of the form "
                "'0000/0000_000_01_0303morning_0015_0.jpg 0' (camera 1, person 0); "
                "correct the line or take it out"
            )
        return Sample(str(folder / name), int(person), int(match[1]))
