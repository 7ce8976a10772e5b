"""Which image is in which cluster, and how doubtful that is, as a file to go on from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from pplr_lightning import functional as F
from pplr_lightning.atomic_write import written_whole
from pplr_lightning.data.files import is_below
from pplr_lightning.labelers.space import Space

NEIGHBORS = 29  # of each image
COLUMNS = ("path", "class", "silhouette", "neighbors")


@dataclass(frozen=True)
class Assignment:
    """Clusters of N images, without their features.

    Attributes:
        root: Folder that the names are relative to.
        names: Of the images.
        classes: Clusters 0 to K - 1, -1 for outliers, (N,) int64.
        silhouettes: As of `functional.simplified_silhouette`, in [-1, 1], (N,).
        neighbors: Other images, the nearest of each first, (N, k) int64.
    """

    root: Path
    names: Sequence[str]
    classes: Tensor
    silhouettes: Tensor
    neighbors: Tensor

    @classmethod
    def of(
        cls, space: Space, classes: Tensor, *, root: Path = Path(), names: Sequence[str] = ()
    ) -> Assignment:
        """Measures clusters.

        Args:
            space: The images, all on this process.
            classes: Clusters 0 to K - 1 without gaps, -1 for outliers, (N,).
            root: Folder that the names are relative to.
            names: Of the images.

        Example:
            >>> features = torch.nn.functional.normalize(torch.tensor([[1.0, 0], [3, 1], [0, 1]]))
            >>> Assignment.of(Space.of(features), torch.tensor([0, 0, -1])).neighbors
            tensor([[1, 2],
                    [0, 2],
                    [1, 0]])
        """
        found = space.neighbors(min(NEIGHBORS + 1, space.total)).cpu()
        own = found == torch.arange(len(found))[:, None]
        own[~own.any(dim=1), -1] = True  # behind many duplicates the image itself is not there
        others = found[~own].view(len(found), -1)
        silhouettes = F.simplified_silhouette(space.features, classes).cpu()
        return cls(root, names, classes.cpu(), silhouettes, others)

    def write(self, path: Path) -> None:
        """Writes them as Parquet, a row for each image, whole or not at all."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        columns = {
            "path": pa.array(self.names, pa.string()),
            "class": pa.array(self.classes.numpy()),
            "silhouette": pa.array(self.silhouettes.numpy()),
            "neighbors": pa.array(list(self.neighbors.int().numpy()), pa.list_(pa.int32())),
        }
        table = pa.table(columns, metadata={"root": str(self.root.absolute())})
        with written_whole(path) as aside:
            pq.write_table(table, aside)

    @classmethod
    def read(cls, path: Path) -> Assignment:
        """Reads what `write` wrote; a name that leads out of the root is refused.

        Raises:
            FileNotFoundError: There is no such file.
            ValueError: It is no such table.
        """
        import pyarrow as pa
        import pyarrow.parquet as pq

        if not path.is_file():
            raise FileNotFoundError(
                f"{path}: no such file; `labels` writes one of each candidate, and none where it "
                "set every setting aside"
            )
        try:
            table = pq.read_table(path, columns=list(COLUMNS))
            names, classes, silhouettes = (table[name].to_pylist() for name in COLUMNS[:3])
            lists = table[COLUMNS[3]].combine_chunks()  # never of Python: there are 29 N numbers
            count = len(lists[0])
            neighbors = lists.cast(pa.list_(pa.int64(), count)).flatten().to_numpy()
            made = cls(
                Path((table.schema.metadata or {})[b"root"].decode()),
                names,
                torch.tensor(classes, dtype=torch.int64),
                torch.tensor(silhouettes, dtype=torch.float32),
                torch.from_numpy(neighbors.copy()).view(len(names), count),
            )
        except (pa.ArrowException, LookupError, TypeError, ValueError, RuntimeError) as error:
            raise ValueError(f"{path}: not written by `labels` ({error})") from error
        if wrong := made._wrong():
            raise ValueError(
                f"{path}: not written by `labels`, or changed ({wrong}); write it anew"
            )
        return made

    def _wrong(self) -> str:
        """Says what does not fit; nothing where all does."""
        images = len(self.names)
        if strange := [name for name in self.names if not is_below(name)]:
            return f"the name {strange[0]!r} leads out of the folder"
        if len({*self.names}) < images:
            return "a name is there twice"
        kept = self.classes[self.classes >= 0]
        if not len(kept) or int(self.classes.min()) < -1 or not bool(kept.bincount().all()):
            return "classes are not 0 to K - 1 without gaps"
        if not bool(self.silhouettes.isfinite().all()):
            return "a silhouette is not finite"
        low, high = (0, 0) if not self.neighbors.numel() else map(int, self.neighbors.aminmax())
        return "" if 0 <= low <= high < images else f"neighbors are not of 0 to {images - 1}"
