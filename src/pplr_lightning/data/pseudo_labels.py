"""The labels of an epoch, as they cross from the labelling to the batches."""

from __future__ import annotations

from dataclasses import dataclass, field

from torch import Tensor

from pplr_lightning.functional.checks import check_shape


@dataclass(frozen=True)
class PseudoLabels:
    """Labels of one epoch for N images, on the CPU.

    Attributes:
        classes: Class of each image, 0 to K - 1, (N,) int64; -1 marks one that is not trained on.
        columns: What the method wants to find in its batches beside the class, by name, a row for
            each image, (N, ...); PPLR's is `agreement`, (N, P).
        per_camera: Where given, a batch is of this many images of each camera, cameras in order,
            whatever `data.batch_size`; classes are then of one camera each.

    Raises:
        ValueError: A column has not a row for each image.
    """

    classes: Tensor
    columns: dict[str, Tensor] = field(default_factory=dict)
    per_camera: int | None = None

    def __post_init__(self) -> None:
        for name, column in self.columns.items():
            check_shape(f"columns[{name!r}]", column, (len(self.classes), *column.shape[1:]))

    def of_frames(self, tracklets: Tensor) -> PseudoLabels:
        """Gives each image the labels of its tracklet, whose number is in `tracklets`, (N,)."""
        columns = {name: column[tracklets] for name, column in self.columns.items()}
        return PseudoLabels(self.classes[tracklets], columns, self.per_camera)

    @property
    def num_classes(self) -> int:
        """The number of classes, K."""
        return int(self.classes.max()) + 1

    @property
    def outlier_share(self) -> float:
        """The share of images left without a class, in [0, 1]."""
        return (self.classes < 0).double().mean().item()
