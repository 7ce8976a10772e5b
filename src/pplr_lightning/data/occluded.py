"""Sets of people behind something, and the same people whole."""

from __future__ import annotations

from pathlib import Path

from pplr_lightning.data.datasets import PublishedDataset, Sample, Splits
from pplr_lightning.data.files import find_images
from pplr_lightning.data.market_layout import DukeMTMCreID


class OccludedREID(PublishedDataset):
    """Occluded-REID (Zhuo et al., ICME 2018): 200 people, for tests alone.

    The images of the occluded are queries, those of the whole the gallery. No cameras are known:
    none is left out for its camera.

    Args:
        root: The folder that holds `occluded_body_images` and `whole_body_images`, in each a folder
            for each person.
    """

    name = "Occluded-REID"
    source = (
        "download it from "
        "https://github.com/tinajia2012/ICME2018_Occluded-Person-Reidentification_datasets"
    )
    licence = "not known here"
    published: tuple[tuple[int, int, int], ...] = ((0, 1_000, 1_000),)
    needs = "the folders occluded_body_images and whole_body_images"

    def _read(self) -> Splits:
        return Splits([], *self._read_both(self.root))

    def _read_both(self, root: Path) -> tuple[list[Sample], list[Sample]]:
        return self._read_people(root / "occluded_body_images", 0), self._read_people(
            root / "whole_body_images", 1
        )

    def _read_people(self, folder: Path, camera: int) -> list[Sample]:
        return [
            Sample(str(image), self._person(image, folder), camera)
            for image in find_images(self._folder(str(folder.relative_to(self.root))))
        ]


class PDukeMTMCreID(OccludedREID):
    """P-DukeMTMC-reID (Zhuo et al., ICME 2018): people of DukeMTMC-reID, occluded and whole.

    Withdrawn with DukeMTMC-reID, of whose images it consists: do not join the two. Of the cameras
    only occluded and whole are told apart, as in Occluded-REID.

    Args:
        root: The folder that holds `train` and `test`, in each `occluded_body_images` and
            `whole_body_images`.
    """

    name = "P-DukeMTMC-reID"
    source = (
        "it consists of images of DukeMTMC-reID, which has no official download any more "
        "(https://exposing.ai/duke_mtmc/ says why)"
    )
    licence = DukeMTMCreID.licence
    published = ()
    withdrawn = DukeMTMCreID.withdrawn
    needs = "the folders train and test, in each occluded_body_images and whole_body_images"

    def _read(self) -> Splits:
        occluded, whole = self._read_both(self.root / "train")
        return Splits(occluded + whole, *self._read_both(self.root / "test"))
