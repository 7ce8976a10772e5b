"""Frames of a video, out of a folder of images or a file."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from PIL import Image

from pplr_lightning.data.files import find_images
from pplr_lightning.data.images import BadImageError, read_image


class Frames(ABC):
    """A video's frames, by their numbers."""

    path: Path

    @abstractmethod
    def sizes(self, numbers: Sequence[int]) -> dict[int, tuple[int, int]]:
        """Gives width and height of frames.

        Raises:
            ValueError: There is no such frame.
        """

    @abstractmethod
    def read(self, numbers: Sequence[int]) -> Iterator[tuple[int, Image.Image]]:
        """Yields frames with their numbers, in ascending order.

        Raises:
            BadImageError: One cannot be decoded.
        """

    def _missing(self, number: int, has: str) -> ValueError:
        return ValueError(
            f"{self.path}: there is no frame {number}, which has boxes; it {has}: are they of "
            "another video?"
        )


def frame_number(file: Path) -> int:
    """Gives the number that the name of a frame's file ends with.

    Raises:
        ValueError: It ends with none, or one of more than nine digits.
    """
    match = re.search(r"(?<!\d)0*(\d{1,9})$", file.stem)
    if match is None:
        raise ValueError(
            f"{file}: the name does not end with the number of its frame, of nine digits at most"
        )
    return int(match[1])


class FrameFolder(Frames):
    """A folder of images whose names end with the number of the frame, such as `000151.jpg`.

    Raises:
        FileNotFoundError: There is no such folder.
        ValueError: It holds no image, a name has no number, or two have the same.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.files: dict[int, Path] = {}
        for file in find_images(path):
            number = frame_number(file)
            first = self.files.setdefault(number, file)
            if first != file:
                raise ValueError(f"{first} and {file} are both frame {number}")

    def sizes(self, numbers: Sequence[int]) -> dict[int, tuple[int, int]]:
        """Reads the heads of the files."""
        found = {}
        for number in numbers:
            if number not in self.files:
                known = f"holds {min(self.files)} to {max(self.files)}"
                raise self._missing(number, known)
            try:
                with Image.open(self.files[number]) as image:
                    found[number] = image.size
            except Exception as error:  # a broken file makes Pillow raise errors of many types
                raise BadImageError(
                    f"{self.files[number]}: cannot be read as an image ({error})"
                ) from error
        return found

    def read(self, numbers: Sequence[int]) -> Iterator[tuple[int, Image.Image]]:
        """Decodes the files."""
        for number in numbers:
            yield number, read_image(str(self.files[number]))


class VideoFile(Frames):
    """A video file, which PyAV decodes.

    Args:
        path: The file.
        first: Number of its first frame, 1 as trackers write it.

    Raises:
        FileNotFoundError: There is no such file.
        ImportError: PyAV is not installed.
        ValueError: The file holds no video.
    """

    def __init__(self, path: Path, first: int = 1) -> None:
        self.path = path
        self.first = first
        if not path.is_file():
            raise FileNotFoundError(f"{path}: no such video, nor a folder of frames")
        self._av = _require_av(path)
        with self._open() as container:
            stream = container.streams.video[0]
            self.size = (stream.width, stream.height)
            # Packets are counted, for what a file says of its length is often wrong.
            try:
                self.count = sum(1 for packet in container.demux(stream) if packet.size)
            except self._av.FFmpegError as error:
                raise BadImageError(f"{path}: cannot be read to its end ({error})") from error

    def sizes(self, numbers: Sequence[int]) -> dict[int, tuple[int, int]]:
        """Gives all frames the size of the video."""
        for number in numbers:
            if not self.first <= number < self.first + self.count:
                known = f"has {self.first} to {self.first + self.count - 1}"
                raise self._missing(number, known)
        return dict.fromkeys(numbers, self.size)

    def read(self, numbers: Sequence[int]) -> Iterator[tuple[int, Image.Image]]:
        """Decodes the file from its first frame to the last that is wanted."""
        wanted, last = set(numbers), max(numbers, default=-1)
        with self._open() as container:
            try:
                for number, frame in enumerate(container.decode(video=0), self.first):
                    if number in wanted:
                        wanted.remove(number)
                        yield number, frame.to_image()
                    if number >= last:
                        break
            except self._av.FFmpegError as error:
                raise BadImageError(f"{self.path}: cannot be decoded ({error})") from error
        if wanted:
            raise BadImageError(f"{self.path}: cannot be decoded as far as frame {min(wanted)}")

    def _open(self) -> Any:
        try:
            container = self._av.open(str(self.path))
        except self._av.FFmpegError as error:
            raise ValueError(f"{self.path}: is no video that can be read ({error})") from error
        if not container.streams.video:
            container.close()
            raise ValueError(f"{self.path}: holds no video")
        return container


def open_frames(path: Path, first: int = 1) -> Frames:
    """Opens a folder of frames or a video file."""
    return FrameFolder(path) if path.is_dir() else VideoFile(path, first)


def _require_av(path: Path) -> ModuleType:
    try:
        import av  # imported here: nothing else needs it
    except ImportError as error:
        raise ImportError(
            f"{path}: a video file is decoded by PyAV: pip install 'pplr-lightning[video]', or "
            "give a folder of its frames"
        ) from error
    return av
