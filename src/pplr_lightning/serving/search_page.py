"""The page: an image to search for, how to search, what was found, and why."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Lock
from typing import Any, NamedTuple

import gradio as gr
from gradio.utils import get_upload_folder
from markupsafe import escape

from pplr_lightning.data.images import BadImageError
from pplr_lightning.gallery import Hit, Query, SearchEngine
from pplr_lightning.gallery.branches import CANDIDATES
from pplr_lightning.serving.uploads import Page, TooLargeError, is_upload, read_upload
from pplr_lightning.serving.views import as_uri, hits_view, why_view

MOST = 100  # results
MOST_CANDIDATES = 1000
KEPT = (300, 900)  # every so many seconds, uploads older than so many are removed
NOTICE = (
    "What is found is **similar, not proven to be the same person**. Search only in images that "
    "you may lawfully process, and not to identify, follow or decide about people; errors are not "
    "spread evenly over groups of people."
)
# Gradio calls this once, for the element that holds the images found.
CHOOSE = """
element.addEventListener('click', (event) => {
  const chosen = event.target.closest('.hit');
  if (!chosen) return;
  for (const hit of element.querySelectorAll('.hit'))
    hit.setAttribute('aria-pressed', String(hit === chosen));
  trigger('click', {place: Number(chosen.dataset.place)});
  if (window.matchMedia('(max-width: 64rem)').matches)
    document.getElementById('why').scrollIntoView({behavior: 'smooth'});
});
"""


class Asked(NamedTuple):
    """An image that was dropped: embedded, and as a picture."""

    query: Query
    picture: str


def build_page(engine: SearchEngine) -> gr.Blocks:
    """Lays out the page and says what happens on it."""
    answers = Answers(engine, Path(get_upload_folder()))
    with Page(title="Search a gallery", analytics_enabled=False, delete_cache=KEPT) as page:
        gr.HTML(f'<h1 class="title">Search {len(engine.gallery):,} images</h1>')
        gr.Markdown(NOTICE, elem_id="notice")
        asked, shown = gr.State(), gr.State([])
        with gr.Row():
            with gr.Column(scale=3, min_width=260):
                picture = gr.Image(
                    label="Drop or paste a crop of one person",
                    sources=["upload", "clipboard"],
                    buttons=[],
                    height=300,
                    elem_id="query",
                )
                options = _options(engine)
            with gr.Column(scale=6, min_width=300, elem_id="found"):
                hits = gr.HTML(answers.prompt(), js_on_load=CHOOSE, elem_id="hits")
            with gr.Column(scale=4, min_width=300, elem_id="why"):
                why = gr.HTML()
        found = [hits, why, shown]
        # Not by Gradio's queue, whose stream of answers may close on a question just asked.
        plain = {"queue": False, "api_visibility": "private"}
        # The raw upload, so that the message about one that is no image is ours.
        picture.change(
            answers.ask,
            [picture, *options],
            [asked, *found],
            preprocess=False,
            show_progress_on=hits,
            **plain,
        )
        gr.on(
            [option.change for option in options],
            answers.show,
            [asked, *options],
            found,
            trigger_mode="always_last",
            show_progress="hidden",
            **plain,
        )
        hits.click(answers.explain, [asked, shown], why, show_progress="hidden", **plain)
    return page


def _options(engine: SearchEngine) -> list[Any]:
    """Makes the controls of a search, in the order of `Answers.show`'s parameters."""
    images = len(engine.gallery)
    top = gr.Slider(
        1, min(MOST, max(2, images)), value=min(20, images), step=1, label="Results", elem_id="top"
    )
    rerank = gr.Checkbox(
        label="Re-rank", info="by the neighbours that query and images share", elem_id="rerank"
    )
    candidates = gr.Slider(
        10,
        MOST_CANDIDATES,
        value=CANDIDATES,
        step=10,
        label="Images to re-rank",
        elem_id="candidates",
    )
    cameras = gr.Dropdown(
        [(f"camera {camera}", camera) for camera in engine.cameras],
        multiselect=True,
        label="Leave out cameras",
        info="such as the query's own" if engine.cameras else "The gallery knows no cameras.",
        interactive=bool(engine.cameras),
        elem_id="cameras",
    )
    with gr.Accordion("Weights of the features", open=False, elem_id="weights"):
        if not engine.weighted:
            gr.Markdown(
                "Not available: the gallery's vectors hold the global feature alone. To weigh the "
                "parts, embed its images with `predict --features both` and build it anew."
            )
        weights = [gr.Slider(0, 3, value=1, step=0.1, label=name) for name in engine.weighted]
    return [top, rerank, candidates, cameras, *weights]


class Answers:
    """What the page answers, as HTML.

    Args:
        engine: Searches.
        uploads: The folder of what was dropped on the page; no other file is opened.
    """

    def __init__(self, engine: SearchEngine, uploads: Path) -> None:
        self.engine = engine
        self.uploads = uploads
        # Of several large uploads only one at a time is in memory; and in one thread, for what a
        # thread has used for it stays its own, 240 MB in each of forty.
        self.reader = ThreadPoolExecutor(1)
        self.lock = Lock()  # Gradio asks from several threads; the model has one mode for all
        height, width = engine.gallery.fingerprint.preprocessing.image_size
        self.shape = f"{width} / {height}"
        self.score = (
            "The image's similarity is their mean, by the weights."
            if len(engine.weighted) == len(engine.branches)
            else "The image's similarity is the mean of the stripes', by the weights."
            if engine.weighted
            else "The image's similarity is the global one alone."
        )

    def prompt(self) -> str:
        """Says what to do first."""
        return _said("Drop an image to see what in the gallery is most like it.")

    def ask(
        self, upload: dict[str, str] | None, *options: Any
    ) -> tuple[Asked | None, Any, Any, list[Hit]]:
        """Embeds an upload and searches for it.

        Args:
            upload: Its `path` and `orig_name`; None where it is taken back.
            options: Of `show`.

        Returns:
            What `show` searches for from now on, and what it gives.
        """
        if upload is None:
            return None, self.prompt(), "", []
        path = upload["path"]
        name = Path(upload["orig_name"] or path).name or "the image"
        if not is_upload(path, self.uploads):
            message = f"{name}: was not uploaded, or is removed by now; drop the image again"
            return None, _said(message, error=True), "", []
        try:
            asked = self.reader.submit(self._read, path).result()
        except TooLargeError as error:
            return None, _said(f"{name}: {error}", error=True), "", []
        except (BadImageError, OSError):
            message = f"{name}: this is no image, or a broken one; drop a JPEG, PNG or WebP file"
            return None, _said(message, error=True), "", []
        return asked, *self.show(asked, *options)

    def _read(self, path: str) -> Asked:
        with self.lock:
            image = read_upload(path)
            return Asked(self.engine.embed(image), as_uri(image))

    def show(
        self,
        asked: Asked | None,
        top: int,
        rerank: bool,
        candidates: int,
        cameras: list[int] | None,
        *weights: float,
    ) -> tuple[Any, Any, list[Hit]]:
        """Searches, and explains the first image found.

        Returns:
            The images, why the first of them, and what `explain` chooses from.
        """
        if asked is None:  # what there is to say, `ask` has said
            return gr.skip(), gr.skip(), []
        try:
            with self.lock:
                hits = self.engine.search(
                    asked.query,
                    min(int(top), MOST),
                    weights=weights or None,
                    rerank=rerank,
                    candidates=min(int(candidates), MOST_CANDIDATES),
                    without_cameras=cameras or (),
                )
        except (ValueError, TypeError, OverflowError) as error:  # or values of no control
            return _said(str(error), error=True), "", []
        return hits_view(hits, summary=self._summary(hits)), self._why(asked, hits, 0), hits

    def explain(self, asked: Asked | None, hits: list[Hit], event: gr.EventData) -> Any:
        """Explains the image that was chosen."""
        place = event._data.get("place") if isinstance(event._data, dict) else None
        if asked is None or not isinstance(place, int) or not 0 <= place < len(hits):
            return gr.skip()
        return self._why(asked, hits, place)

    def _why(self, asked: Asked, hits: list[Hit], place: int) -> str:
        if not hits:
            return ""
        hit = hits[place]
        with self.lock:
            explanation = self.engine.explain(asked.query, hit.row)
        return why_view(
            asked.picture,
            hit,
            1 + place,
            explanation,
            self.engine.branches,
            score=self.score,
            shape=self.shape,
        )

    def _summary(self, hits: list[Hit]) -> str:
        gallery = self.engine.gallery
        reranked = bool(hits) and hits[0].distance is not None
        order = "nearest first, re-ranked" if reranked else "most similar first"
        text = (
            f"{len(hits):,} of {len(gallery):,} images, {order}. Below each: its cosine similarity"
        )
        text += " and its distance after re-ranking." if reranked else "."
        if gallery.recall is not None:
            text += f" Approximate: recall@10 was {gallery.recall:.3f} when the index was built."
        return text


def _said(message: str, *, error: bool = False) -> str:
    role = "alert" if error else "status"
    return f'<p class="said {role}" role="{role}">{escape(message)}</p>'
