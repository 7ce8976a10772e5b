"""Small sets of before deep learning, of two images for most people: VIPeR, iLIDS, GRID, PRID."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from lightning.pytorch.utilities import rank_zero_info, rank_zero_warn

from pplr_lightning.data.datasets import UNKNOWN, Sample, Splits
from pplr_lightning.data.files import find_images
from pplr_lightning.data.matlab import read_mat
from pplr_lightning.data.random_splits import SplitDataset, samples_of, shuffled


class VIPeR(SplitDataset):
    """VIPeR (Gray et al., PETS 2007): 632 people, one image of each under two cameras.

    316 people train, the others are tested, drawn by the split's number over 2 and not as in any
    paper: ten divisions, each tested twice. In splits of even numbers the images of `cam_a` are
    queries, in odd ones those of `cam_b`.

    Args:
        root: The folder that holds `cam_a` and `cam_b`, with names as `000_45.bmp`.
        split: 0 to 19, or `all` for `test`.

    Raises:
        ValueError: There is no such split.
    """

    name = "VIPeR"
    source = "it was at https://vision.soe.ucsc.edu/node/178"
    licence = "not known here"
    published = ((632, 316, 316),)
    needs = "the folders cam_a and cam_b"
    num_splits = 20

    _pattern = re.compile(r"(\d+)_")

    def _read(self) -> Splits:
        cameras = [
            self._read_camera(name, camera) for camera, name in enumerate(("cam_a", "cam_b"))
        ]
        return self._two_views(cameras)

    def _read_camera(self, folder: str, camera: int) -> dict[str, list[Sample]]:
        return _by_person(
            Sample(str(image), int(self._match(self._pattern, image, "000_45.bmp")[1]), camera)
            for image in find_images(self._folder(folder))
        )


class QMULiLIDS(SplitDataset):
    """QMUL i-LIDS (Zheng et al., BMVC 2009): 476 images of 119 people in an airport.

    59 people train, with all their images. Of each of the other 60 one image is the query and one
    the gallery. All is drawn by the split's number, and not as in any paper. Which camera an image
    is of is not published, so none is left out for it.

    Args:
        root: The folder that holds `Persons`, with names as `0001001.jpg`.
        split: 0 to 9, or `all` for `test`.

    Raises:
        ValueError: There is no such split.
    """

    name = "QMUL iLIDS"
    source = "it was at https://www.eecs.qmul.ac.uk/~jason/data/i-LIDS_Pedestrian.tgz"
    licence = "not known here"
    needs = "the folder Persons"

    _pattern = re.compile(r"(\d{4})\d{3}\.")

    def _read(self) -> Splits:
        images = find_images(self._folder("Persons"))
        people = _by_person(
            Sample(str(image), int(self._match(self._pattern, image, "0001001.jpg")[1]), UNKNOWN)
            for image in images
        )
        say = rank_zero_info if (len(images), len(people)) == (476, 119) else rank_zero_warn
        say(
            f"{self.root} holds {len(images)} images of {len(people)} people; {self.name} as "
            "published has 476 of 119"
        )
        order = shuffled(people, self.number)
        train, test = order[: len(order) // 2], order[len(order) // 2 :]
        pairs = []
        for person in test:
            names = {Path(sample.path).name: sample for sample in people[person]}
            if len(names) < 2:
                raise ValueError(
                    f"{people[person][0].path}: the only image of its person; a test needs two"
                )
            pairs.append([names[name] for name in shuffled(names, self.number)[:2]])
        return Splits(
            train=[sample for person in sorted(train) for sample in people[person]],
            # Another camera than that of all else, which is unknown.
            query=sorted(query._replace(camera_id=-2) for query, _ in pairs),
            gallery=sorted(gallery for _, gallery in pairs),
        )


class GRID(SplitDataset):
    """QMUL underGround Re-IDentification (Loy et al., CVPR 2009): 250 people, eight cameras.

    Of its ten divisions, which come with it, each has 125 people in training. The gallery also
    holds 775 images of others, as person 0.

    Args:
        root: The folder `underground_reid`, which holds `probe`, `gallery` and
            `features_and_partitions.mat`; names as `0001_1_25004_107_32_106_221.jpeg`.
        split: 0 to 9, or `all` for `test`.

    Raises:
        ValueError: There is no such split.
    """

    name = "GRID"
    source = "it was at https://personal.ie.cuhk.edu.hk/~ccloy/downloads_qmul_underground_reid.html"
    licence = "not known here"
    published = ((250, 125, 900),)
    needs = "the folders probe and gallery and the file features_and_partitions.mat"

    _pattern = re.compile(r"(\d{4})_(\d+)_")

    def _read(self) -> Splits:
        trained = self._read_partition()
        probe, gallery = (
            [
                Sample(str(image), int(match[1]), int(match[2]))
                for image in find_images(self._folder(name))
                for match in [self._match(self._pattern, image, "0001_1_25004_107_32_106_221.jpeg")]
            ]
            for name in ("probe", "gallery")
        )
        return Splits(
            train=[sample for sample in probe + gallery if sample.person_id in trained],
            query=[sample for sample in probe if sample.person_id not in trained],
            gallery=[sample for sample in gallery if sample.person_id not in trained],
        )

    def _read_partition(self) -> set[int]:
        path = self._file("features_and_partitions.mat")
        try:
            partitions = read_mat(path)["trainIdxAll"][0]
            return {int(person) for person in partitions[self.number][0][0][2][0]}
        except (KeyError, IndexError, TypeError, ValueError) as error:
            raise ValueError(
                f"{path}: does not hold the training people of split {self.number} in trainIdxAll; "
                "unpack the data set again"
            ) from error


class PRID2011(SplitDataset):
    """PRID 2011 (Hirzer et al., SCIA 2011), single shot: 200 people under both of two cameras.

    100 of them train, drawn by the split's number and not as in any paper; of the others the images
    of `cam_a` are queries, those of `cam_b` the gallery, with all 549 people who were only there.
    People of `cam_a` alone are in no list: their numbers are those of other people of `cam_b`.

    Args:
        root: The folder `prid_2011`, which holds `single_shot`; names as `person_0001.png`.
        split: 0 to 9, or `all` for `test`.

    Raises:
        ValueError: There is no such split.
    """

    name = "PRID 2011"
    source = (
        "it was at https://www.tugraz.at/institute/icg/research/team-bischof/lrs/downloads/PRID11"
    )
    licence = "not known here"
    published = ((200, 100, 649),)
    needs = "the folders single_shot/cam_a and single_shot/cam_b"

    common = 200  # people 1 to this number are the same under both cameras

    _pattern = re.compile(r"person_(\d{4})\.")

    def _read(self) -> Splits:
        cam_a, cam_b = (
            _by_person(
                Sample(str(image), int(match[1]), camera)
                for image in find_images(self._folder(f"single_shot/{name}"))
                for match in [self._match(self._pattern, image, "person_0001.png")]
            )
            for camera, name in enumerate(("cam_a", "cam_b"))
        )
        both = sorted(name for name in cam_a.keys() & cam_b.keys() if int(name) <= self.common)
        train = set(shuffled(both, self.number)[: len(both) // 2])
        return Splits(
            train=samples_of(cam_a, sorted(train)) + samples_of(cam_b, sorted(train)),
            query=samples_of(cam_a, [name for name in both if name not in train]),
            gallery=samples_of(cam_b, [name for name in sorted(cam_b) if name not in train]),
        )


def _by_person(samples: Iterable[Sample]) -> dict[str, list[Sample]]:
    people: dict[str, list[Sample]] = {}
    for sample in samples:
        people.setdefault(f"{sample.person_id:04d}", []).append(sample)
    return people
