"""What PGLR changed: images, their cluster, and the refined label's classes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import torch
from matplotlib.figure import Figure
from torch import Tensor

from pplr_lightning.data import Sample
from pplr_lightning.visualization.layout import BLACK, GREEN, Sheet, on_white, sample, sampled

ROWS = 4
EXAMPLES = 2  # images of the label's cluster
CLASSES = 5
BLUE = "#0072b2"


@on_white
def refinement_figure(
    samples: Sequence[Sample],
    labels: Tensor,
    indices: Tensor,
    refined: Tensor,
    *,
    beta: float,
    when: str = "",
    seed: int = 0,
) -> Figure:
    """Draws the images whose refined label departs most from the cluster label, and the median.

    Args:
        samples: All N images.
        labels: Their clusters, -1 for outliers, (N,).
        indices: Which images were refined, (M,); none of them an outlier.
        refined: Their refined labels over the C clusters, (M, C), rows of sum 1.
        beta: Share of the cluster label in the refined one.
        when: Said in the title.
        seed: Of the example images.
    """
    own = refined.gather(1, labels[indices][:, None])[:, 0]
    order = own.argsort(stable=True).tolist()
    picked = order[: ROWS - 1]
    if len(order) >= ROWS:
        picked.append(order[max(len(order) // 2, ROWS - 1)])
    classes = min(CLASSES, refined.shape[1])
    clustered = int((labels >= 0).sum())
    known = all(one.person_id >= 0 for one in samples)
    sheet = Sheet(
        len(picked),
        1 + EXAMPLES + classes,
        title=f"What PGLR changed{when and ', ' + when}",
        caption=(
            "The images whose refined label keeps least of their cluster label, and the median, "
            f"among {sampled(len(order), clustered, 'clustered images')}. A refined label is "
            f"{beta:g} times the cluster label plus {1 - beta:g} times the parts' predictions, "
            "weighted by their agreement, here of the images as they are, without augmentation. "
            "To the right its largest classes, each with an image drawn from the cluster, its "
            "share as number and bar; green: the image's own cluster."
            + (" ✓: most images of the cluster are of the image's true identity." if known else "")
        ),
        below=0.3,
        gaps={1: 0.25, 1 + EXAMPLES: 0.35},
        above=0.24,
    )
    if picked:
        sheet.head(0, "image")
        sheet.head(1, "its cluster")
        sheet.head(1 + EXAMPLES, "refined label")
    for row, place in enumerate(picked):
        index = int(indices[place])
        label, share = int(labels[index]), float(own[place])
        which = "median" if row == ROWS - 1 else "most changed"
        sheet.name(row, f"{which}\nkeeps {share:.2f} of\nits own label")
        sheet.image(row, 0, samples[index].path, frame=BLACK)
        for column, other in enumerate(_examples(labels, label, index, EXAMPLES, seed), start=1):
            sheet.image(row, column, samples[other].path, words=f"cluster {label}")
        values, found = refined[place].topk(classes)
        for number, (value, cluster) in enumerate(
            zip(values.tolist(), found.tolist(), strict=True)
        ):
            column = 1 + EXAMPLES + number
            mark = _mark(samples, labels, cluster, index) if known else ""
            words = f"{cluster}{mark}: {value:.2f}"
            for other in _examples(labels, cluster, index, 1, seed):
                frame = GREEN if cluster == label else None
                sheet.image(row, column, samples[other].path, words=words, frame=frame)
            sheet.bar(row, column, value, GREEN if cluster == label else BLUE)
    return sheet.figure


def _examples(labels: Tensor, cluster: int, without: int, count: int, seed: int) -> list[int]:
    members = [i for i in (labels == cluster).nonzero()[:, 0].tolist() if i != without]
    return [members[place] for place in sample(len(members), count, seed)]


def _mark(samples: Sequence[Sample], labels: Tensor, cluster: int, index: int) -> str:
    members = torch.nonzero(labels == cluster)[:, 0].tolist()
    persons = Counter(samples[member].person_id for member in members)
    same = bool(persons) and persons.most_common(1)[0][0] == samples[index].person_id
    return " ✓" if same else ""
