from __future__ import annotations

import sys

import numpy as np
import pytest

from pplr_lightning.data.images import BadImageError
from pplr_lightning.data.video import FrameFolder, VideoFile, open_frames

from .trees import touch


def test_a_folder(tmp_path):
    touch(tmp_path / "000003.jpg", tmp_path / "img_12.jpg")
    frames = open_frames(tmp_path)
    assert frames.sizes([3, 12]) == {3: (8, 16), 12: (8, 16)}
    assert [(number, image.size) for number, image in frames.read([12])] == [(12, (8, 16))]
    with pytest.raises(ValueError, match=r"there is no frame 4, .*; it holds 3 to 12: are they of"):
        frames.sizes([3, 4])
    (tmp_path / "000003.jpg").write_text("no image")
    with pytest.raises(BadImageError, match=r"000003.jpg: cannot be read as an image"):
        frames.sizes([3])
    touch(tmp_path / "a/12.png")
    with pytest.raises(ValueError, match=r"12.png and .*img_12.jpg are both frame 12"):
        FrameFolder(tmp_path)
    touch(tmp_path / "0000000012.jpg")
    with pytest.raises(ValueError, match=r"are both frame 12"):  # of ten digits, as some write it
        FrameFolder(tmp_path)
    (tmp_path / "0000000012.jpg").unlink()
    touch(tmp_path / "1699999999012.jpg")
    with pytest.raises(ValueError, match=r"1699999999012.jpg: the name does .* of nine digits at"):
        FrameFolder(tmp_path)
    (tmp_path / "1699999999012.jpg").unlink()
    touch(tmp_path / "cover.jpg")
    with pytest.raises(ValueError, match=r"cover.jpg: the name does not end with the number"):
        FrameFolder(tmp_path)


def test_a_video_without_its_decoder(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(FileNotFoundError, match=r"1\.mp4: no such video"):
        open_frames(tmp_path / "1.mp4")
    (tmp_path / "1.mp4").touch()
    with pytest.raises(ImportError, match=r"1\.mp4: .*pip install 'pplr-lightning\[video\]', or"):
        open_frames(tmp_path / "1.mp4")


@pytest.fixture(scope="module")
def video(tmp_path_factory):
    """Eight frames of a grey that rises by 30."""
    av = pytest.importorskip("av")
    path = tmp_path_factory.mktemp("video") / "grey.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for number in range(8):
            grey = np.full((48, 64, 3), 20 + 30 * number, np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(grey)))
        container.mux(stream.encode(None))
    return path


def test_a_video(video):
    frames = VideoFile(video)
    assert frames.sizes([1, 8]) == {1: (64, 48), 8: (64, 48)}
    found = [(number, round(np.asarray(image).mean())) for number, image in frames.read([2, 5, 8])]
    assert found == [(number, pytest.approx(20 + 30 * (number - 1), abs=4)) for number in (2, 5, 8)]
    with pytest.raises(ValueError, match=r"grey.mp4: there is no frame 9, .* has 1 to 8"):
        frames.sizes([9])
    from_zero = VideoFile(video, first=0)
    (only,) = from_zero.read([0])
    assert np.asarray(only[1]).mean() == pytest.approx(20, abs=4)


def test_what_is_no_video(video, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"2.mp4: no such video, nor a folder of frames"):
        open_frames(tmp_path / "2.mp4")
    (tmp_path / "text.mp4").write_text("no video")
    with pytest.raises(ValueError, match=r"text.mp4: is no video that can be read"):
        open_frames(tmp_path / "text.mp4")
    cut = tmp_path / "cut.mp4"
    cut.write_bytes(video.read_bytes()[:700])
    with pytest.raises((ValueError, BadImageError), match=r"cut.mp4"):
        list(open_frames(cut).read([8]))
