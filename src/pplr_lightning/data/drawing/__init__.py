"""Draws people as surveillance cameras see them: pure functions of their seeds and numbers.

`draw_crop` draws one image; `make_person` and `make_camera` make up who is seen by what.
`pplr_lightning.data.synthetic` makes a data set of them.
"""

from pplr_lightning.data.drawing.bodies import VIEWS, draw_person
from pplr_lightning.data.drawing.cameras import Camera, make_camera
from pplr_lightning.data.drawing.canvas import Canvas, Paint
from pplr_lightning.data.drawing.people import Person, make_person
from pplr_lightning.data.drawing.scenes import draw_crop

__all__ = [
    "VIEWS",
    "Camera",
    "Canvas",
    "Paint",
    "Person",
    "draw_crop",
    "draw_person",
    "make_camera",
    "make_person",
]
