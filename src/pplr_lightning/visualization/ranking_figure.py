"""Ranking lists: a query and what it finds first."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.figure import Figure

from pplr_lightning.data import Sample
from pplr_lightning.data.datasets import Clothes, file_numbers, wears
from pplr_lightning.evaluation.rankings import Ranking
from pplr_lightning.visualization.layout import BLACK, GREEN, GREY, RED, Sheet, on_white


@on_white
def ranking_figure(
    rankings: Sequence[Ranking],
    queries: Sequence[Sample],
    gallery: Sequence[Sample],
    *,
    when: str = "",
    same_camera: bool = False,
    clothes: Clothes | None = None,
) -> Figure:
    """Draws queries with their nearest gallery images.

    Args:
        rankings: One for each row; places are those in `queries` and `gallery`.
        queries: All query images.
        gallery: All gallery images.
        when: Said in the title.
        same_camera: Matches under the query's own camera count.
        clothes: Matches in other clothes count alone, or those in the same.
    """
    left_out_too = "" if same_camera else "the person under the query's own camera, "
    if clothes is not None:
        left_out_too += f"in {'the same' if clothes == 'changed' else 'other'} clothes, "
    length = max((len(ranking.gallery) for ranking in rankings), default=0)
    sheet = Sheet(
        len(rankings),
        1 + length,
        title=f"Ranking lists{when and ', ' + when}",
        caption=(
            f"{len(rankings)} of {len(queries):,} queries, by average precision (AP), each with "
            f"the {length} nearest of {len(gallery):,} gallery images. Green and ✓: the same "
            "person; red, dashed and ✗: another one; grey, dotted and -: not counted, because it "
            f"is {left_out_too}the query's own file, or junk. c: camera; in bold and with =, the "
            "query's own."
        ),
        below=0.22,
        gaps={1: 0.15},
    )
    for row, ranking in enumerate(rankings):
        query = queries[ranking.query]
        sheet.name(row, f"{ranking.name}\nAP {100 * ranking.average_precision:.1f} %")
        sheet.image(row, 0, query.path, frame=BLACK, words=f"query{_camera(query)}")
        rank = 0
        for column, place in enumerate(ranking.gallery, start=1):
            found = gallery[place]
            own_camera = found.camera_id == query.camera_id
            same_person = found.person_id == query.person_id
            left_out = (
                (own_camera and not same_camera)
                or file_numbers([query, found]) == [0, 0]
                or not wears(query, found, clothes)
            )
            if found.person_id < 0 or (same_person and left_out):
                mark, frame, line = "-", GREY, ":"
            else:
                rank += 1
                mark, frame, line = (
                    (f"{rank} ✓", GREEN, "-") if same_person else (f"{rank} ✗", RED, "--")
                )
            words = mark + _camera(found) + (" =" if own_camera and found.camera_id >= 0 else "")
            sheet.image(
                row, column, found.path, frame=frame, line=line, words=words, bold=own_camera
            )
    return sheet.figure


def _camera(sample: Sample) -> str:
    return f"  c{sample.camera_id}" if sample.camera_id >= 0 else ""
