from __future__ import annotations

import base64
import io

from PIL import Image

from pplr_lightning.serving.pictures import as_uri, file_uri


def opened(uri: str) -> Image.Image:
    head, content = uri.split(",")
    assert head == "data:image/jpeg;base64"
    return Image.open(io.BytesIO(base64.b64decode(content)))


def test_a_picture_is_made_small_and_keeps_its_shape():
    assert opened(as_uri(Image.new("RGB", (800, 800)))).size == (160, 160)
    assert opened(as_uri(Image.new("RGBA", (32, 64), (255, 0, 0, 255)))).size == (32, 64)


def test_a_file(tmp_path):
    Image.new("RGB", (32, 64), (255, 0, 0)).save(tmp_path / "red.png")
    red, green, blue = opened(file_uri(str(tmp_path / "red.png"))).getpixel((16, 32))
    assert red > 250
    assert max(green, blue) < 5


def test_a_file_that_is_gone_or_no_image(tmp_path):
    (tmp_path / "no.png").write_text("text")
    assert file_uri(str(tmp_path / "no.png")) is None
    assert file_uri(str(tmp_path / "nowhere.png")) is None
