"""Data sets in the layout of Market-1501: three folders, ids in the file names."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Literal

from lightning.pytorch.utilities import rank_zero_info

from pplr_lightning.data.datasets import UNKNOWN, PublishedDataset, Sample, Splits
from pplr_lightning.data.files import find_images


class MarketLayout(PublishedDataset):
    """Any folder in the layout of Market-1501.

    Three folders hold files whose names begin with `<person>_c<camera>`. Person -1 is junk, which
    no metric counts and no training sees. No identity of the first may be in the others.

    Attributes:
        folders: Those of training, query and gallery.
        example: A file's name, for messages.

    Args:
        root: The folder that holds the three.
    """

    name = "a set in the Market-1501 layout"
    folders: tuple[str, str, str] = ("bounding_box_train", "query", "bounding_box_test")
    example = "0002_c1s1_000151_01.jpg"

    _pattern = re.compile(r"^(-1|\d+)_c(\d+)")

    def _read(self) -> Splits:
        train, query, gallery = (self._read_folder(folder) for folder in self.folders)
        train = [sample for sample in train if sample.person_id != -1]
        tested = {sample.person_id for sample in query + gallery}
        both = [sample for sample in train if sample.person_id in tested]
        if both:
            folders = "{} and in {} or {}".format(*self.folders)
            raise ValueError(
                f"{self.root}: {len({sample.person_id for sample in both})} identities are in "
                f"{folders}, the first that of {both[0].path}: training would see test "
                "identities; take them out of one, or read the folders as ImageFolder"
            )
        return Splits(train, query, gallery)

    def _read_folder(self, folder: str) -> list[Sample]:
        path = self.root / folder
        if not path.is_dir():
            needs = "{}, {} and {}".format(*self.folders)
            raise self._missing(path, "folder", needs)
        return [self._parse(image) for image in find_images(path)]

    def _parse(self, image: Path) -> Sample:
        match = self._pattern.match(image.name)
        if match is None:
            raise ValueError(
                f"{image}: the name is not of the form {self.example} (person, camera); "
                "rename or remove the file, or read the folder as ImageFolder"
            )
        return Sample(str(image), int(match[1]), int(match[2]))


class Market1501(MarketLayout):
    """Market-1501 (Zheng et al., ICCV 2015): 1,501 people, six cameras.

    In the gallery, person 0 stands for all distractors, boxes that match nobody.

    Args:
        root: The folder that holds `bounding_box_train`, `query` and `bounding_box_test`.
        tracklets: `names` makes tracklets of the training images from their names, which a tracker
            would have to find: those of one person under one camera in one sequence (`s1` in
            `0002_c1s1_000151_01.jpg`), with the frames of the video (`000151`). They are taken from
            identities, so say so beside figures made with them. None, the usual setting, makes
            none.
        distractors: Adds the images of the folder `images` to the gallery, as person 0: some
            500,000 that come with the set in an archive of their own.

    Raises:
        ValueError: `tracklets` is another.
    """

    name = "Market-1501"
    source = "download it from https://zheng-lab.cecs.anu.edu.au/Project/project_reid.html"
    licence = "academic research only"
    published = ((12_936, 3_368, 19_732),)

    _sequence = re.compile(r"^\d+_c\d+s(\d+)_(?:(\d{1,9})_)?")

    def __init__(
        self,
        root: str | Path,
        *,
        tracklets: Literal["names"] | None = None,
        distractors: bool = False,
    ) -> None:
        super().__init__(root)
        if tracklets not in ("names", None):
            raise ValueError(f"tracklets={tracklets!r}: choose 'names', or leave it out")
        self.tracklets = tracklets
        self.distractors = distractors

    def load(self) -> Splits:
        """Lists the images, and the distractors where they are wanted."""
        splits = super().load()
        if not self.distractors:
            return splits
        folder = self.root / "images"
        if not folder.is_dir():
            raise self._missing(folder, "folder", "500,000 distractors in images")
        found = [
            Sample(str(image), 0, UNKNOWN if match is None else int(match[2]))
            for image in find_images(folder)
            for match in [self._pattern.match(image.name)]
        ]
        self.variant = f"gallery with {len(found):,} distractors"
        rank_zero_info(f"{folder} holds {len(found):,} distractors; published are some 500,000")
        return splits._replace(gallery=splits.gallery + found)

    def _read(self) -> Splits:
        splits = super()._read()
        return splits if self.tracklets is None else splits._replace(train=self._track(splits))

    def _track(self, splits: Splits) -> list[Sample]:
        walks: dict[tuple[int, str], int] = {}
        tracked = []
        for sample in splits.train:
            match = self._sequence.match(Path(sample.path).name)
            if match is None:
                raise ValueError(
                    f"{sample.path}: tracklets=names, but the name has no sequence, as s1 in "
                    f"{self.example}; leave tracklets out, or read the folder as ImageFolder"
                )
            walk = walks.setdefault((sample.person_id, match[1]), len(walks))
            # Each sequence counts its frames anew.
            frame = UNKNOWN if match[2] is None else int(match[1]) * 10**9 + int(match[2])
            tracked.append(sample._replace(tracklet_id=walk, frame=frame))
        return tracked


class DukeMTMCreID(MarketLayout):
    """DukeMTMC-reID (Ristani et al., ECCV workshops 2016; Zheng et al., ICCV 2017).

    Withdrawn: Duke University took the data down in 2019, because they had been filmed and
    published against the study's approved protocol. The reader is for results that have to be
    compared with older ones; take another set for new work.

    Args:
        root: The folder that holds `bounding_box_train`, `query` and `bounding_box_test`.
    """

    name = "DukeMTMC-reID"
    source = "it has no official download any more (https://exposing.ai/duke_mtmc/ says why)"
    licence = "was CC BY-NC-SA 4.0"
    published = ((16_522, 2_228, 17_661),)
    withdrawn = (
        "taken down by Duke University in 2019, filmed and published against the study's "
        "approved protocol; take another set for new work"
    )
    example = "0001_c2_f0046182.jpg"


class OccludedDuke(DukeMTMCreID):
    """Occluded-DukeMTMC (Miao et al., ICCV 2019): another split, in which all queries are occluded.

    Withdrawn with DukeMTMC-reID, of whose images it consists: do not join the two.

    Args:
        root: The folder that holds `bounding_box_train`, `query` and `bounding_box_test`.
    """

    name = "Occluded-Duke"
    source = (
        "its lists (https://github.com/lightas/Occluded-DukeMTMC-Dataset) split DukeMTMC-reID, "
        "which has no official download any more"
    )
    published = ((15_618, 2_210, 17_661),)


class CUHK03(MarketLayout):
    """CUHK03 (Li et al., CVPR 2014) in the new protocol of 767 and 700 people (Zhong et al., 2017).

    Args:
        root: The folder `CUHK03-NP`, which holds `detected` and `labeled`.
        boxes: People cut out by a detector (`detected`) or by hand (`labeled`).

    Raises:
        ValueError: `boxes` is neither.
    """

    name = "CUHK03-NP"
    source = (
        "download it from https://github.com/zhunzhong07/person-re-ranking/tree/master/CUHK03-NP"
    )
    licence = "none stated, published for research"
    example = "0001_c1_1.png"

    def __init__(
        self, root: str | Path, *, boxes: Literal["detected", "labeled"] = "detected"
    ) -> None:
        super().__init__(root)
        counts = {"detected": (7_365, 1_400, 5_332), "labeled": (7_368, 1_400, 5_328)}
        if boxes not in counts:
            raise ValueError(f"boxes={boxes!r}: CUHK03 has {' and '.join(map(repr, counts))}")
        self.published = (counts[boxes],)
        train, query, gallery = MarketLayout.folders
        self.folders = (f"{boxes}/{train}", f"{boxes}/{query}", f"{boxes}/{gallery}")


class PersonX(MarketLayout):
    """PersonX (Sun and Zheng, CVPR 2019): 1,266 rendered people; no real person in it.

    Args:
        root: The folder that holds `bounding_box_train`, `query` and `bounding_box_test`: `subset1`
            of six cameras, or one of the six backgrounds of `PersonX_v1`.
    """

    name = "PersonX"
    source = "download it from https://github.com/sxzrt/Instructions-of-the-PersonX-dataset"
    licence = "none stated, its authors ask to be cited"
    published = ((9_840, 5_136, 30_816), (14_760, 856, 30_816))


class VeRi776(MarketLayout):
    """VeRi-776 (Liu et al., ICME 2016): 776 vehicles, 20 cameras.

    Args:
        root: The folder that holds `image_train`, `image_query` and `image_test`.
    """

    name = "VeRi-776"
    source = "ask its authors for it as https://vehiclereid.github.io/VeRi/ says"
    licence = "non-commercial use only"
    # Copies with 32 training images fewer are about; methods report on either.
    published = ((37_778, 1_678, 11_579), (37_746, 1_678, 11_579))
    folders = ("image_train", "image_query", "image_test")
    example = "0001_c001_00016450_0.jpg"
