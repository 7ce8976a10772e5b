from __future__ import annotations

import base64
import io

from PIL import Image

from pplr_lightning.data import Sample
from pplr_lightning.gallery import Explanation, Hit
from pplr_lightning.serving.views import as_uri, file_uri, hits_view, why_view

EVIL = '<img src=x onerror="alert(1)">.png'
PIXEL = "data:image/jpeg;base64,AAAA"


def hit(path="a.png", *, person=-1, camera=-1, distance=None) -> Hit:
    return Hit(3, Sample(path, person, camera), 0.8127, distance)


class TestHits:
    def test_says_what_is_known(self, tmp_path):
        Image.new("RGB", (32, 64)).save(tmp_path / "a.png")
        page = hits_view([hit(str(tmp_path / "a.png"), camera=2), hit()], summary="two of 9")
        assert "two of 9" in page
        assert page.count("<li>") == 2
        assert page.count("0.813") == 2
        assert page.count("data:image/jpeg") == 1
        assert page.count("file cannot be read") == 1
        assert page.count("camera 2") == 1
        assert "person" not in page
        assert "distance" not in page
        assert [page.count(f'data-place="{place}"') for place in (0, 1, 2)] == [1, 1, 0]
        assert page.count('aria-pressed="true"') == 1

    def test_distance_of_what_was_re_ranked(self):
        assert "distance 0.250" in hits_view([hit(distance=0.25)], summary="")

    def test_a_name_is_no_markup(self):
        page = hits_view([hit(EVIL)], summary="")
        assert "<img" not in page
        assert "&lt;img src=x" in page


class TestWhy:
    def why(self, path="a.png", **similarity) -> str:
        known = {name.replace("_", " "): value for name, value in similarity.items()}
        return why_view(
            PIXEL,
            hit(path, person=7),
            4,
            Explanation(known, "somewhere"),
            ["global", "part 1", "part 2"],
            score="So it is.",
            shape="1 / 2",
        )

    def test_a_bar_for_each(self):
        page = self.why("global", **{"global": 0.5}, part_1=0.75, part_2=-0.2)
        for text in (
            "Why rank 4?",
            "0.500",
            "0.750",
            "-0.200",
            "person 7",
            "somewhere",
            "So it is",
        ):
            assert text in page
        assert [page.count(f"width: {width}%") for width in ("50.0", "75.0", "0.0")] == [1, 1, 1]
        assert page.count(PIXEL) == 1
        assert "--crop: 1 / 2" in page

    def test_what_is_not_known(self):
        page = self.why(**{"global": 0.5})
        assert page.count('"figure">?<') == 2
        assert "file cannot be read" in page

    def test_a_name_is_no_markup(self):
        page = self.why(EVIL)
        assert 'onerror="' not in page
        assert page.count("<img") == 1


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
