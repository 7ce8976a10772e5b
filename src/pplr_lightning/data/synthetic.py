"""The embedded data set: people drawn as several cameras see them."""

from __future__ import annotations

import inspect
import json
import sys
from collections.abc import Iterator
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image
from rich.progress import track

from pplr_lightning.atomic_write import written_whole
from pplr_lightning.data.drawing.cameras import make_camera
from pplr_lightning.data.drawing.people import between, chance, make_person, stream
from pplr_lightning.data.drawing.scenes import draw_crop, start_walk
from pplr_lightning.data.forked_map import forked_map, free_cores
from pplr_lightning.data.market_layout import MarketLayout
from pplr_lightning.functional.checks import LARGEST_SIDE, check_count, check_fraction

MOST_DRAWN = 1_000_000  # of anything

# Raise it whenever a change makes any image differ: sets drawn before are then refused.
DRAWING_VERSION = 2

# First words of the keys of random streams; the drawing's own are 1 to 4 and 8.
_PLAN, _WALK, _IMAGE = 5, 6, 7

_PASS = 4  # images of one pass under a camera
_FRAMES = 25  # between two of them
_FEWEST = 64  # images that are worth a process of their own

# Numbers of people who are none of the identities; distractors, then junk.
_NOBODY = {0: 10**9, -1: 2 * 10**9}

_camera = lru_cache(make_camera)


class DrawnImage(NamedTuple):
    """One image still to be drawn.

    Attributes:
        folder: The split's folder in the Market-1501 layout.
        person_id: 0 is a distractor, -1 is junk.
        camera_id: From 1.
        number: Counts the images of the same person and camera, from 0.
        sequence: Counts the passes of the same person under the camera, from 1.
        frame: Counts the camera's frames since the sequence began.
    """

    folder: str
    person_id: int
    camera_id: int
    number: int
    sequence: int = 1
    frame: int = 0

    @property
    def name(self) -> str:
        """The file's name, as Market-1501 would call it."""
        person = "-1" if self.person_id == -1 else f"{self.person_id:04d}"
        return f"{person}_c{self.camera_id}s{self.sequence}_{self.frame:06d}_01.png"


class SyntheticReID(MarketLayout):
    """A drawn re-ID data set in the Market-1501 layout.

    People differ in clothes, hair, skin, build and bags, and share a wardrobe, so that some wear
    the same shirt or the same trousers. An open jacket or a bag shows from one side only, and
    things hide the lower body: telling people apart takes their parts. Training identities have
    even numbers, from 2; test identities odd ones. The query holds one image for each camera
    that a test identity appears in, the gallery the rest, distractors and junk.

    Up to four images in a row, 25 frames apart, are of one pass of a person under a camera: they
    share its place, and the person's heading. Every pass of theirs is another sequence.

    Every image is a pure function of the seed, the person, the camera and the image's number,
    and of `image_size`, `camera_shift` and `occlusion`: on every machine the pixels are the
    same, and adding identities leaves the other images as they were.

    Args:
        root: The folder to draw into; `prepare` makes it.
        train_identities: Number of training identities, at least 1.
        test_identities: Number of test identities, at least 1.
        cameras: Number of cameras, at least 2.
        images_per_identity: Images of one identity, at least 4: on average, give or take a
            quarter; spread over a random choice of at least two cameras.
        image_size: (height, width) in pixels, each at least 16.
        camera_shift: How much cameras differ in colour, light, sharpness, viewpoint and
            background: 0 (all alike) to 1.
        occlusion: Probability that something hides part of a person, 0 to 1.
        distractors: Number of gallery images of people who are in no query.
        junk: Number of gallery images that show half a person or none; metrics ignore them.
        seed: Not negative; another seed makes other people and other cameras.

    Raises:
        ValueError: A parameter is out of its range.
    """

    name = "SyntheticReID"

    def __init__(
        self,
        root: str | Path = "data/synthetic",
        *,
        train_identities: int = 150,
        test_identities: int = 50,
        cameras: int = 4,
        images_per_identity: int = 11,
        image_size: tuple[int, int] = (128, 64),
        camera_shift: float = 0.3,
        occlusion: float = 0.2,
        distractors: int = 60,
        junk: int = 40,
        seed: int = 0,
    ) -> None:
        super().__init__(root)
        if len(image_size) != 2:
            raise ValueError(f"image_size must be (height, width), got {image_size}")
        height, width = image_size
        check_count("train_identities", train_identities, most=MOST_DRAWN)
        check_count("test_identities", test_identities, most=MOST_DRAWN)
        check_count("cameras", cameras, least=2, most=MOST_DRAWN)
        check_count("images_per_identity", images_per_identity, least=4, most=MOST_DRAWN)
        check_count("image_size[0] (height)", height, least=16, most=LARGEST_SIDE)
        check_count("image_size[1] (width)", width, least=16, most=LARGEST_SIDE)
        check_count("distractors", distractors, least=0, most=MOST_DRAWN)
        check_count("junk", junk, least=0, most=MOST_DRAWN)
        check_count("seed", seed, least=0)
        check_fraction("camera_shift", camera_shift, "0 makes all cameras alike")
        check_fraction("occlusion", occlusion, "it is a probability")
        self.train_identities = train_identities
        self.test_identities = test_identities
        self.cameras = cameras
        self.images_per_identity = images_per_identity
        self.image_size = (height, width)
        self.camera_shift = camera_shift
        self.occlusion = occlusion
        self.distractors = distractors
        self.junk = junk
        self.seed = seed

    def prepare(self) -> None:
        """Draws the data set, unless `root` already holds it.

        The images are drawn into a folder beside `root` that takes its place at the end, so
        that a run cut short leaves no half set. As many processes draw as cores are free, or as
        `OMP_NUM_THREADS` says; the pixels do not depend on it.

        Raises:
            ValueError: `root` holds something else: another set or foreign files.
        """
        if self._is_drawn():
            return
        try:
            with written_whole(self.root, folder=True) as partial:
                self._write(partial)
                if self.root.is_dir():
                    self.root.rmdir()  # it is empty: _is_drawn has looked
        except OSError:
            # Another node may have drawn the same set on the same disk in the meantime.
            if not self._is_drawn():
                raise

    def images(self) -> Iterator[DrawnImage]:
        """Yields every image of the set, drawing none."""
        for index in range(1, self.train_identities + 1):
            for camera_id, count in self._plan(2 * index):
                for number in range(count):
                    yield self._image("bounding_box_train", 2 * index, camera_id, number)
        for index in range(self.test_identities):
            for camera_id, count in self._plan(2 * index + 1):
                for number in range(count):
                    folder = "bounding_box_test" if number else "query"
                    yield self._image(folder, 2 * index + 1, camera_id, number)
        for person_id, count in ((0, self.distractors), (-1, self.junk)):
            for number in range(count):
                place = (person_id, 1 + number % self.cameras, number)
                yield DrawnImage("bounding_box_test", *place, frame=_FRAMES * number)

    def draw(self, image: DrawnImage) -> np.ndarray:
        """Draws one image of the set.

        Returns:
            (height, width, 3) uint8.
        """
        _, person_id, camera_id, number, *_ = image
        camera = _camera(self.seed, camera_id, shift=self.camera_shift)
        # Each distractor and each piece of junk is another person.
        key = person_id if person_id > 0 else _NOBODY[person_id] + number
        rng = stream(self.seed, _IMAGE, key, camera_id, number)
        walk, step = divmod(number, _PASS) if person_id > 0 else (number, 0)
        nobody = person_id < 1 and chance(rng, 0.3)
        return draw_crop(
            None if nobody else make_person(self.seed, key),
            camera,
            rng,
            walk=start_walk(camera, stream(self.seed, _WALK, key, camera_id, walk)),
            step=step,
            image_size=self.image_size,
            occlusion=self.occlusion,
            badly_cropped=person_id == -1,
        )

    def _image(self, folder: str, person_id: int, camera_id: int, number: int) -> DrawnImage:
        """Names an identity's image by when it was taken."""
        walk, step = divmod(number, _PASS)
        begin = int(stream(self.seed, _PLAN, person_id, camera_id, walk).integers(100_000))
        return DrawnImage(folder, person_id, camera_id, number, walk + 1, begin + _FRAMES * step)

    def _plan(self, person_id: int) -> list[tuple[int, int]]:
        """Draws which cameras see an identity, and how often: (camera, at least 2) pairs."""
        rng = stream(self.seed, _PLAN, person_id)
        total = max(4, round(self.images_per_identity * between(rng, 0.75, 1.25)))
        used = int(rng.integers(2, min(self.cameras, total // 2) + 1))
        chosen = sorted(np.argsort(rng.random(self.cameras))[:used].tolist())
        # Two images in every camera: one for the query, one to be found from the others.
        counts = [2] * used
        for _ in range(total - 2 * used):
            counts[int(rng.integers(used))] += 1
        return [(1 + camera, count) for camera, count in zip(chosen, counts, strict=True)]

    def _parameters(self) -> dict[str, Any]:
        """Names what decides the images: every argument but the folder."""
        names = [name for name in inspect.signature(SyntheticReID).parameters if name != "root"]
        parameters = {name: getattr(self, name) for name in names}
        return {"drawing": DRAWING_VERSION, **parameters, "image_size": list(self.image_size)}

    def _is_drawn(self) -> bool:
        """Tells whether `root` holds this set (True) or nothing (False).

        Raises:
            ValueError: It holds something else.
        """
        if not self.root.exists():
            return False
        fix = "give data.dataset.init_args.root another folder, or delete this one"
        if not self.root.is_dir():
            raise ValueError(f"{self.root} is a file, not a folder for a drawn data set; {fix}")
        manifest = self.root / "synthetic.json"
        if not manifest.is_file():
            if any(self.root.iterdir()):
                raise ValueError(f"{self.root} holds files that are not a drawn data set; {fix}")
            return False
        found, wanted = json.loads(manifest.read_text()), self._parameters()
        differing = ", ".join(
            f"{key}={found.get(key)} instead of {value}"
            for key, value in wanted.items()
            if found.get(key) != value
        )
        if differing:
            raise ValueError(
                f"{self.root} holds a set drawn with other parameters ({differing}); {fix}"
            )
        return True

    def _write(self, folder: Path) -> None:
        for split in ("bounding_box_train", "query", "bounding_box_test"):
            (folder / split).mkdir(parents=True)
        quiet = not sys.stderr.isatty()
        images = list(self.images())
        with forked_map(min(free_cores(), len(images) // _FEWEST)) as map_in_processes:
            drawn = map_in_processes(partial(self._save, folder), images)
            for _ in track(
                drawn, f"Drawing {self.root}", len(images), transient=True, disable=quiet
            ):
                pass
        (folder / "synthetic.json").write_text(json.dumps(self._parameters(), indent=2) + "\n")

    def _save(self, folder: Path, image: DrawnImage) -> None:
        path = folder / image.folder / image.name
        # Compressing harder would take longer than drawing.
        Image.fromarray(self.draw(image)).save(path, compress_level=1)
