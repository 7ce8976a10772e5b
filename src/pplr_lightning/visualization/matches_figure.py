"""What a search has found: queries with the images most similar to them."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.figure import Figure

from pplr_lightning.data import Sample
from pplr_lightning.visualization.layout import BLACK, Sheet, on_white


@on_white
def matches_figure(
    queries: Sequence[str],
    found: Sequence[Sequence[Sample]],
    similarities: Sequence[Sequence[float]],
    *,
    total: int,
    reranked: bool = False,
) -> Figure:
    """Draws queries with the images found, the most similar first.

    Args:
        queries: Files of the Q queries.
        found: The images that each found.
        similarities: Of each of these to its query.
        total: Images that were searched.
        reranked: Whether they are in the order of `rerank_distance`, not of their similarity.
    """
    length = max((len(row) for row in found), default=0)
    sheet = Sheet(
        len(queries),
        1 + length,
        title="Most similar images" + (", re-ranked" if reranked else ""),
        caption=(
            f"{'A query' if len(queries) == 1 else f'{len(queries)} queries, each'} with the "
            f"{length} most similar of {total:,} images. "
            "Below an image: its cosine similarity to the query"
            + (", c: its camera" if any(one.camera_id >= 0 for row in found for one in row) else "")
            + ". Similar images need not show the same person."
        ),
        names=0.0,
        gaps={1: 0.15},
    )
    for row, (query, samples) in enumerate(zip(queries, found, strict=True)):
        sheet.image(row, 0, query, frame=BLACK, words="query")
        for column, (one, similarity) in enumerate(
            zip(samples, similarities[row], strict=False), start=1
        ):
            camera = f"  c{one.camera_id}" if one.camera_id >= 0 else ""
            sheet.image(row, column, one.path, words=f"{similarity:.2f}{camera}")
    return sheet.figure
