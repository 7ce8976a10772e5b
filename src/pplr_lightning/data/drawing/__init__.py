"""Draws people as surveillance cameras see them: pure functions of their seeds and numbers.

`draw_crop` draws one image; `make_person`, `make_camera` and `start_walk` make up who passes what.
`pplr_lightning.data.synthetic` makes a data set of them.
"""

from pplr_lightning.data.drawing.bodies import Pose, draw_person
from pplr_lightning.data.drawing.cameras import Camera, make_camera
from pplr_lightning.data.drawing.canvas import Canvas, Paint
from pplr_lightning.data.drawing.people import Person, make_person
from pplr_lightning.data.drawing.scenes import Walk, draw_crop, start_walk
from pplr_lightning.data.drawing.solids import Eye, Light

__all__ = [
    "Camera",
    "Canvas",
    "Eye",
    "Light",
    "Paint",
    "Person",
    "Pose",
    "Walk",
    "draw_crop",
    "draw_person",
    "make_camera",
    "make_person",
    "start_walk",
]
