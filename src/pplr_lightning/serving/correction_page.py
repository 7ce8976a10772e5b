"""The page to correct clusters on: one at a time, and beside it what may be the same person."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from threading import Lock
from typing import Any, NamedTuple

import gradio as gr
from markupsafe import escape

from pplr_lightning.serving.corrections import Corrections, View
from pplr_lightning.serving.uploads import Page
from pplr_lightning.serving.views import TEMPLATES

NOTICE = (
    "Your answers are kept as pairs of images, and the next labels obey them. Choose images by "
    "clicking on them. When in doubt, go on: a wrong answer does more harm than none."
)
# Gradio calls this once, for the element that holds the images. Each click tells all that are
# chosen, so that none is lost, and of which look, so that none is taken for another's.
CHOOSE = """
element.addEventListener('click', (event) => {
  const clicked = event.target.closest('.hit');
  if (!clicked) return;
  clicked.setAttribute('aria-pressed', String(clicked.getAttribute('aria-pressed') !== 'true'));
  const chosen = [...element.querySelectorAll('.hit[aria-pressed=true]')];
  trigger('click', {
    look: clicked.closest('.look').dataset.look,
    places: chosen.map((one) => Number(one.dataset.place)),
  });
});
"""


class Look(NamedTuple):
    """What one visitor sees and has chosen of it.

    Attributes:
        view: A cluster.
        token: Of this look among all.
        within: Images of the cluster that are chosen.
        beside: Images beside it that are chosen.
    """

    view: View
    token: str
    within: tuple[int, ...] = ()
    beside: tuple[int, ...] = ()


Shown = tuple[Look | None, Any, Any, Any]


def build_page(corrections: Corrections) -> gr.Blocks:
    """Lays out the page and says what happens on it."""
    desk = Desk(corrections)
    with Page(title="Look and correct", analytics_enabled=False) as page:
        gr.HTML('<h1 class="title">Look and correct</h1>')
        gr.Markdown(NOTICE, elem_id="notice")
        look = gr.State()
        said = gr.HTML(elem_id="said")
        with gr.Row():
            back, forward, undo = (gr.Button(text) for text in ("Back", "Next", "Take back"))
        within = gr.HTML(js_on_load=CHOOSE, elem_id="within")
        with gr.Row():
            split = gr.Button("Split off the chosen: not this person", variant="primary")
            drop = gr.Button("Leave the chosen out: no good image")
        beside = gr.HTML(js_on_load=CHOOSE, elem_id="beside")
        merge = gr.Button("The chosen are this person, the others are not", variant="primary")
        shown = [look, said, within, beside]
        # Not by Gradio's queue, as on the page of a search.
        plain: dict[str, Any] = {"queue": False, "api_visibility": "private"}
        page.load(desk.start, None, shown, **plain)
        # Each click tells all: of several in a row the last has to be heard after the others.
        quiet = {"show_progress": "hidden", "trigger_mode": "always_last", **plain}
        within.click(desk.choose_within, look, [look, said], **quiet)
        beside.click(desk.choose_beside, look, [look, said], **quiet)
        for button, act in (
            (back, desk.back),
            (forward, desk.forward),
            (undo, desk.undo),
            (split, desk.split),
            (drop, desk.drop),
            (merge, desk.merge),
        ):
            button.click(act, look, shown, show_progress_on=within, **plain)
    return page


class Desk:
    """What the page answers: a look, what is said of it, and the images, as HTML.

    Args:
        corrections: Takes the answers.
    """

    def __init__(self, corrections: Corrections) -> None:
        self.corrections = corrections
        self.lock = Lock()  # Gradio asks from several threads
        self.looks = 0

    def start(self) -> Shown:
        """Shows the most doubtful cluster."""
        with self.lock:
            return self._show(self._next(None))

    def forward(self, look: Look | None) -> Shown:
        """Shows the next cluster."""
        with self.lock:
            return self._show(self._next(look))

    def back(self, look: Look | None) -> Shown:
        """Shows the cluster before."""
        with self.lock:
            return self._show(self._next(look, step=-1))

    def undo(self, look: Look | None) -> Shown:
        """Takes the last answer back, whoever gave it."""
        if look is not None:
            return self._act(look, lambda _: self.corrections.undo())
        with self.lock:
            try:
                self.corrections.undo()
            except (ValueError, OSError) as error:
                return None, _said(str(error), error=True), "", ""
            return self._show(self._next(None))

    def split(self, look: Look | None) -> Shown:
        """Parts the chosen images of the cluster from the others."""
        return self._act(look, lambda one: self.corrections.split(one.view, one.within))

    def drop(self, look: Look | None) -> Shown:
        """Leaves the chosen images out, of the cluster and beside it."""
        return self._act(look, lambda one: self.corrections.drop([*one.within, *one.beside]))

    def merge(self, look: Look | None) -> Shown:
        """Merges the chosen images beside the cluster with it; goes on where there was none."""
        return self._act(
            look, lambda one: self.corrections.merge(one.view, one.beside), goes_on=True
        )

    def choose_within(self, look: Look | None, event: gr.EventData) -> tuple[Any, Any]:
        """Takes which images of the cluster are chosen."""
        places = self._places(look, event)
        if look is None or places is None or max(places, default=-1) >= len(look.view.images):
            return gr.skip(), gr.skip()
        return self._chosen(look._replace(within=tuple(look.view.images[one] for one in places)))

    def choose_beside(self, look: Look | None, event: gr.EventData) -> tuple[Any, Any]:
        """Takes which images beside the cluster are chosen."""
        places = self._places(look, event)
        if look is None or places is None or max(places, default=-1) >= len(look.view.beside):
            return gr.skip(), gr.skip()
        return self._chosen(look._replace(beside=tuple(look.view.beside[one] for one in places)))

    def _chosen(self, look: Look) -> tuple[Look, str]:
        words = f"{len(look.within)} chosen in the cluster, {len(look.beside)} beside it."
        return look, self._status(look.view, words)

    def _places(self, look: Look | None, event: gr.EventData) -> list[int] | None:
        """Reads what a click tells; None where it is of another look, or nonsense."""
        data = event._data if isinstance(event._data, dict) else {}
        places = data.get("places")
        if look is None or data.get("look") != look.token or not isinstance(places, list):
            return None
        sound = all(type(place) is int and place >= 0 for place in places)
        return sorted({*places}) if sound else None

    def _act(
        self, look: Look | None, act: Callable[[Look], None], *, goes_on: bool = False
    ) -> Shown:
        """Does what a button says with what its visitor saw, and shows what is asked next."""
        with self.lock:
            if look is None:  # no cluster is left
                return self._show(self._next(None))
            try:
                act(look)
            except (ValueError, OSError) as error:
                said = self._status(look.view, str(error), error=True)
                return look, said, gr.skip(), gr.skip()
            cluster = look.view.cluster
            if goes_on and not look.beside:
                return self._show(self._next(look))
            view = self.corrections.view(cluster)
            return self._show(view if view.images else self._next(look))

    def _next(self, look: Look | None, step: int = 1) -> View | None:
        """Finds the next cluster in order that has images, around the end."""
        order = self.corrections.order
        left = {*self.corrections.clusters()}
        at = -1 if look is None else order.index(look.view.cluster)
        places = ((at + step * by) % len(order) for by in range(1, len(order) + 1))
        found = next((order[place] for place in places if order[place] in left), None)
        return None if found is None else self.corrections.view(found)

    def _show(self, view: View | None) -> Shown:
        if view is None:
            return None, _said("No cluster is left."), "", ""
        self.looks += 1
        look = Look(view, str(self.looks))
        more = view.size - len(view.images)
        within = self._images(
            look,
            "This cluster: choose the images that are not of its person",
            "Look at all before you split: those that you leave are then one person. The clearest "
            "is first, the most doubtful follow; below each is its silhouette."
            + (f" {more:,} more are not shown, and nothing is said of them." if more else ""),
            [(image, f"{self.corrections.clarity(image):.2f}") for image in view.images],
        )
        beside = self._images(
            look,
            "Beside it: choose the images that are of the person of its first image",
            "The nearest images of other clusters, one of each, and of none. Those that you choose "
            "bring their cluster along; none may be right."
            if view.beside
            else "Nothing is near that you have not yet told apart.",
            [(image, self._where(image)) for image in view.beside],
        )
        return look, self._status(view), within, beside

    def _where(self, image: int) -> str:
        cluster = self.corrections.cluster_of(image)
        return "alone" if cluster < 0 else f"of {self.corrections.size_of(cluster):,}"

    def _images(
        self, look: Look, heading: str, summary: str, images: Sequence[tuple[int, str]]
    ) -> str:
        assignment = self.corrections.assignment
        named = [(str(assignment.root / assignment.names[image]), words) for image, words in images]
        return TEMPLATES.get_template("look.html.jinja").render(
            token=look.token, heading=heading, summary=summary, images=named
        )

    def _status(self, view: View, words: str = "", *, error: bool = False) -> str:
        corrections = self.corrections
        place = 1 + corrections.order.index(view.cluster)
        text = (
            f"{words} Cluster {place:,} of {len(corrections.order):,} in order of doubt, "
            f"images: {view.size:,}. Answers in {corrections.file}: {corrections.answers:,}."
        )
        return _said(text.strip(), error=error)


def _said(text: str, *, error: bool = False) -> str:
    role = "alert" if error else "status"
    return f'<p class="said {role}" role="{role}">{escape(text)}</p>'
