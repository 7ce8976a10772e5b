"""MSMT17: two folders, and lists that say which image belongs where."""

from __future__ import annotations

import re
from pathlib import Path

from lightning.pytorch.utilities import rank_zero_info

from pplr_lightning.data.datasets import Sample, Splits
from pplr_lightning.data.files import is_below, read_utf8
from pplr_lightning.data.market_layout import MarketLayout


class MSMT17(MarketLayout):
    """MSMT17 (Wei et al., CVPR 2018): 4,101 people, 15 cameras; V1, or V2 with faces blurred.

    V1 has the folders `train` and `test`, V2 `mask_train_v2` and `mask_test_v2`; V1 is read where
    both are there. In both, `list_train.txt`, `list_val.txt`, `list_query.txt` and
    `list_gallery.txt` hold lines `<person>/<file> <person>`, and the third number of a file's name
    is the camera. Training takes the lists train and val, as published results do. Persons are
    numbered from 0 in training and from 0 again in the test lists.

    A third layout is about, that of Market-1501 (`bounding_box_train`, `query`,
    `bounding_box_test`), which does not say of which version its images are. It is read where
    neither of the others is there.

    Results say which it was: on V2, supervised methods have 2 to 4 % mAP less than on V1.

    Args:
        root: The folder that holds the two folders and the four lists, or the three folders.
    """

    name = "MSMT17"
    source = "ask its authors for it (https://www.pkuvmc.com/dataset.html)"
    licence = "research only, not to be passed on"
    published = ((32_621, 11_659, 82_161),)

    _layouts = (("train", "test"), ("mask_train_v2", "mask_test_v2"))
    _versions = ("MSMT17 V1", "MSMT17 V2, faces blurred")
    needs = (
        "train and test (V1) or mask_train_v2 and mask_test_v2 (V2), and list_train.txt, "
        "list_val.txt, list_query.txt and list_gallery.txt"
    )
    _listed = re.compile(r"^\d+_\d+_(\d+)_")

    def _read(self) -> Splits:
        names = [name for names in self._layouts for name in names]
        if (self.root / self.folders[0]).is_dir() and not any(
            (self.root / name).is_dir() for name in names
        ):
            self.variant = "MSMT17 in the Market-1501 layout, V1 or V2"
            rank_zero_info(f"{self.root}: {self.variant}; the folder does not say which")
            # Persons of training and test are numbered apart, but perhaps from the same number.
            return Splits(*(self._read_folder(folder) for folder in self.folders))
        train, test = self._find_folders()
        self.variant = self._versions[0 if train.name == self._layouts[0][0] else 1]
        rank_zero_info(f"{self.root}: {self.variant}")
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
                raise self._missing(folder, "folder", self.needs)
        return train, test

    def _read_list(self, split: str, folder: Path) -> list[Sample]:
        path = self._file(f"list_{split}.txt")
        lines = read_utf8(path).splitlines()
        samples = [
            self._parse_line(line, folder, f"{path}, line {number}")
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

    def _parse_line(self, line: str, folder: Path, where: str) -> Sample:
        name, _, person = line.strip().rpartition(" ")  # a path may hold spaces
        match = self._listed.match(Path(name).name)
        if match is None or not person.isdecimal() or not is_below(name):
            raise ValueError(
                f"{where}: {line.strip()!r} is not of the form "
                "'0000/0000_000_01_0303morning_0015_0.jpg 0' (camera 1, person 0); "
                "correct the line or take it out"
            )
        return Sample(str(folder / name), int(person), int(match[1]))
