"""What is published about a data set, and what a reader says when the set is not there."""

from __future__ import annotations

from pathlib import Path

from lightning.pytorch.utilities import rank_zero_info, rank_zero_warn

from pplr_lightning.data.datasets import ReIDDataset, Splits


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
