"""What every reader gives: lists of samples; the readers are in the files beside this one."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from lightning.pytorch.utilities import rank_zero_info, rank_zero_warn
from torchvision.datasets.folder import IMG_EXTENSIONS

UNKNOWN = -1  # person or camera id of an image that names none


class Sample(NamedTuple):
    """One image file with its ids; an id that is not known is -1."""

    path: str
    person_id: int
    camera_id: int


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

    def unmatched_queries(self) -> list[Sample]:
        """Lists the queries that no gallery image of their person under another camera matches."""
        cameras: dict[int, set[int]] = {}
        for sample in self.gallery:
            if sample.person_id != UNKNOWN:
                cameras.setdefault(sample.person_id, set()).add(sample.camera_id)
        return [s for s in self.query if not cameras.get(s.person_id, set()) - {s.camera_id}]


def _count(samples: list[Sample]) -> str:
    persons = {sample.person_id for sample in samples if sample.person_id >= 0}
    cameras = {sample.camera_id for sample in samples if sample.camera_id >= 0}
    return (
        f"{len(samples):,} images, {len(persons) or 'unknown'} identities, "
        f"{len(cameras) or 'unknown'} cameras"
    )


def check_queries(splits: Splits, *, evaluates: bool) -> None:
    """Warns of queries that no metric can count.

    Args:
        splits: The data set; without a gallery there is nothing to check.
        evaluates: Whether metrics are wanted.

    Raises:
        ValueError: They are, and there is no other query.
    """
    lost = splits.unmatched_queries()
    if not lost or not splits.gallery:
        return
    text = (
        f"{len(lost)} of {len(splits.query)} queries have no gallery image of their identity "
        "under another camera"
    )
    if len(lost) == len(splits.query) and evaluates:
        raise ValueError(
            f"{text}: nothing can be evaluated; check the ids and cameras. A set of one camera is "
            "evaluated as ImageFolder (root, query, gallery) with a pattern of the person alone, "
            r"such as ^(?P<person>\d+)_c"
        )
    rank_zero_warn(f"{text}, the first is {lost[0].path}: no metric counts them")


class ReIDDataset:
    """Base of all readers.

    The constructor touches no file, so that a config can be built and checked on any machine.
    """

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
        withdrawn: Why and when its authors withdrew it; a warning repeats it at every load.

    Args:
        root: The folder that holds the set.
    """

    name: str
    source: str = ""
    licence: str = ""
    published: tuple[tuple[int, int, int], ...] = ()
    withdrawn: str = ""

    def __init__(self, root: str | Path) -> None:
        self.root = Path(root)

    def load(self) -> Splits:
        """Lists the images; says how many there are and how many are published."""
        splits = self._read()
        if self.withdrawn:
            rank_zero_warn(f"{self.name}: {self.withdrawn}")
        if self.published:
            found = (len(splits.train), len(splits.query), len(splits.gallery))
            say = rank_zero_info if found in self.published else rank_zero_warn
            say(
                f"{self.root} holds {_numbers(found)} images (train, query, gallery); "
                f"{self.name} as published has {' or '.join(map(_numbers, self.published))}"
            )
        return splits

    def _read(self) -> Splits:
        raise NotImplementedError

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


def find_images(root: Path) -> list[Path]:
    """Lists the image files below `root`, recursively, sorted by path; hidden files are no images.

    Raises:
        FileNotFoundError: `root` is no folder.
        ValueError: There is no image below `root`.
    """
    if not root.is_dir():
        raise FileNotFoundError(f"{root}: no such folder; set the data set's root to where it is")
    images = sorted(
        path
        for path in root.rglob("*")
        if path.suffix.lower() in IMG_EXTENSIONS and not path.name.startswith(".")
    )
    if not images:
        endings = ", ".join(IMG_EXTENSIONS)
        raise ValueError(f"{root}: the folder holds no image (looked for {endings})")
    return images
