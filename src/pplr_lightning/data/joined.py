"""Several data sets as one."""

from __future__ import annotations

from collections import Counter
from os.path import abspath

from pplr_lightning.data.datasets import ReIDDataset, Sample, Splits


class Joined(ReIDDataset):
    """Several data sets, joined for training, of which one is evaluated at a time.

    The training images are those of all, one set after the other; person, camera and tracklet ids
    are shifted, so that two sets share none. Query and gallery are those of one set: a figure over
    a mixture would compare with nothing. Evaluate the others by `test` with another `evaluate`.

    Args:
        datasets: The sets to join, at least one.
        evaluate: Which of them gives query and gallery, counted from 0.

    Raises:
        ValueError: There is no set, or none of that number.
    """

    def __init__(self, datasets: list[ReIDDataset], *, evaluate: int = 0) -> None:
        if not datasets:
            raise ValueError("Joined needs at least one data set in datasets")
        if not 0 <= evaluate < len(datasets):
            raise ValueError(
                f"evaluate={evaluate}: the datasets are counted from 0, "
                f"so give a number from 0 to {len(datasets) - 1}"
            )
        self.datasets = datasets
        self.evaluate = evaluate
        self.protocol = datasets[evaluate].protocol

    def prepare(self) -> None:
        """Writes what any of the sets needs on disk."""
        for dataset in self.datasets:
            dataset.prepare()

    def load(self) -> Splits:
        """Lists the training images of all sets, and query and gallery of one.

        Raises:
            ValueError: Two sets train on the same file, or on one that is evaluated.
        """
        loaded = _disjoint([dataset.load() for dataset in self.datasets])
        self.variant = self.datasets[self.evaluate].variant
        train = [sample for splits in loaded for sample in splits.train]
        _, query, gallery = loaded[self.evaluate]
        counts = Counter(abspath(sample.path) for sample in train)
        twice = next((path for path, count in counts.items() if count > 1), None)
        if twice is not None:
            raise ValueError(f"{twice} is a training image of two of the datasets: list it in one")
        tested = next((s.path for s in query + gallery if abspath(s.path) in counts), None)
        if tested is not None:
            raise ValueError(
                f"{tested} is a training image of one of the datasets and a test image of "
                "another: training would see test images; leave one of the two out"
            )
        return Splits(train, query, gallery)


def _disjoint(loaded: list[Splits]) -> list[Splits]:
    """Shifts the ids of each set past those of the sets before; negative ones stay."""
    shifted = []
    person = camera = tracklet = 0  # the first ids still free
    for splits in loaded:
        shifted.append(
            Splits(
                *(
                    [_shift(sample, person, camera, tracklet) for sample in split]
                    for split in splits
                )
            )
        )
        samples = [sample for split in shifted[-1] for sample in split]
        person = max([person, *(sample.person_id + 1 for sample in samples)])
        camera = max([camera, *(sample.camera_id + 1 for sample in samples)])
        tracklet = max([tracklet, *(sample.tracklet_id + 1 for sample in samples)])
    return shifted


def _shift(sample: Sample, *by: int) -> Sample:
    ids = (one if one < 0 else one + n for one, n in zip(sample[1:4], by, strict=True))
    return Sample(sample.path, *ids)._replace(frame=sample.frame, clothes_id=sample.clothes_id)
