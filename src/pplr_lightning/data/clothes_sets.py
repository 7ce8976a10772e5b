"""Sets of people who change their clothes: LTCC and PRCC."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Literal

from pplr_lightning.data.datasets import PublishedDataset, Sample, Splits
from pplr_lightning.data.files import find_images


class LTCC(PublishedDataset):
    """LTCC (Qian et al., ACCV 2020): 152 people, most of them in several clothes.

    Figures are published of three kinds: those of all matches, as on other sets; of matches in
    other clothes alone, `evaluation.clothes: changed`; and in the same, `evaluation.clothes: same`.

    Args:
        root: The folder `LTCC_ReID`, which holds `train`, `query` and `test`; names as
            `144_1_c11_011239.png` (person, clothes, camera).
    """

    name = "LTCC"
    source = "ask its authors for it (https://naiq.github.io/LTCC_Perosn_ReID.html)"
    licence = "on request, not known here"
    published = ((9_576, 493, 7_050),)
    needs = "the folders train, query and test"

    _pattern = re.compile(r"(\d+)_(\d+)_c(\d+)")

    def _read(self) -> Splits:
        return Splits(*(self._read_folder(name) for name in ("train", "query", "test")))

    def _read_folder(self, name: str) -> list[Sample]:
        samples = []
        for image in find_images(self._folder(name)):
            match = self._match(self._pattern, image, "144_1_c11_011239.png")
            person, clothes, camera = map(int, match.groups())
            samples.append(Sample(str(image), person, camera, clothes_id=clothes))
        return samples


class PRCC(PublishedDataset):
    """PRCC (Yang et al., TPAMI): people under the cameras A, B and C, in C in other clothes.

    The gallery is of camera A: of each person one image, drawn at random ten times
    (`single_gallery_shot`). The folder `val` is in no list.

    Args:
        root: The folder that holds `rgb`: in `train` a folder for each person with names as
            `A_cropped_rgb001.jpg`, in `test` the folders `A`, `B` and `C`, in each one for each
            person.
        queries: Those of camera C (`changed`), or of B, in the same clothes (`same`).

    Raises:
        ValueError: `queries` is neither.
    """

    name = "PRCC"
    source = (
        "ask its authors for it (Yang et al., Person Re-identification by Contour Sketch under "
        "Moderate Clothing Change, https://arxiv.org/abs/2002.02295)"
    )
    licence = "not known here"
    needs = "the folders rgb/train and rgb/test, in the latter A, B and C"
    protocol = "single_gallery_shot"

    _pattern = re.compile(r"([ABC])")

    def __init__(
        self, root: str | Path, *, queries: Literal["changed", "same"] = "changed"
    ) -> None:
        super().__init__(root)
        if queries not in ("changed", "same"):
            raise ValueError(f"queries={queries!r}: PRCC has 'changed' and 'same'")
        self.queries = queries
        self.variant = f"PRCC, clothes {queries}"

    def _read(self) -> Splits:
        folder = self._folder("rgb/train")
        train = [
            self._sample(image, folder, match[1])
            for image in find_images(folder)
            for match in [self._match(self._pattern, image, "A_cropped_rgb001.jpg (camera)")]
        ]
        query, gallery = (
            [self._sample(image, folder, name) for image in find_images(folder)]
            for name in ("C" if self.queries == "changed" else "B", "A")
            for folder in [self._folder(f"rgb/test/{name}")]
        )
        return Splits(train, query, gallery)

    def _sample(self, image: Path, folder: Path, camera: str) -> Sample:
        return Sample(
            str(image),
            self._person(image, folder),
            "ABC".index(camera),
            clothes_id=int(camera == "C"),
        )
