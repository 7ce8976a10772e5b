"""What a request sends, as the functions of a page get it."""

from __future__ import annotations

import pytest

gradio = pytest.importorskip("gradio")
from fastapi import FastAPI  # noqa: E402
from PIL import Image  # noqa: E402
from starlette.testclient import TestClient  # noqa: E402

from pplr_lightning.data.images import BadImageError  # noqa: E402
from pplr_lightning.serving import uploads  # noqa: E402
from pplr_lightning.serving.uploads import (  # noqa: E402
    Page,
    TooLargeError,
    is_upload,
    read_upload,
)

MARKED = {"meta": {"_type": "gradio.FileData"}}  # what Gradio copies to where it has an address


@pytest.fixture
def send(tmp_path, monkeypatch):
    """Sends an image and a value; returns the answer's code and what the page's function got."""
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path / "uploads"))
    got = []
    with Page(analytics_enabled=False) as page:
        button, image, value = gradio.Button(), gradio.Image(), gradio.JSON()
        button.click(
            lambda *values: got.append(values), [image, value], queue=False, preprocess=False
        )
    client = TestClient(gradio.mount_gradio_app(FastAPI(), page, path="/"))

    def call(*data):
        body = {"data": data, "fn_index": 0, "session_hash": "abc1"}
        answer = client.post("/gradio_api/run/predict", json=body)
        return answer.status_code, got.pop() if got else answer.text

    return call


def test_no_file_is_copied(send, tmp_path):
    (tmp_path / "secret.png").write_text("secret")
    path = str(tmp_path / "secret.png")
    file = {"path": path, **MARKED}
    code, (image, value) = send(file, [{"inner": [file]}, file])
    assert code == 200
    assert image["path"] == path  # not that of a copy
    assert value == [{"inner": [{"path": path}]}, {"path": path}]
    assert not list((tmp_path / "uploads").rglob("secret.png"))


def test_nothing_is_fetched(send):
    path = "http://127.0.0.1:9/a.png"
    code, (image, value) = send({"path": path, **MARKED}, {"path": path, **MARKED})
    assert (code, image["path"], value) == (200, path, {"path": path})


@pytest.mark.parametrize("sent", [{}, {"path": None}, {"path": [1], "orig_name": 5}, [], "a", 5])
def test_what_is_no_image_is_an_empty_upload(send, sent):
    code, (image, _) = send(sent, None)
    assert code == 200
    assert (image["path"], image["orig_name"]) == ("", "")


def test_an_image_that_is_taken_back(send):
    assert send(None, None) == (200, (None, None))


def test_too_few_values_are_refused(send):
    code, text = send(None)
    assert code == 500
    assert "didn't receive enough input values" in text


@pytest.mark.parametrize("path", ["", "\0", "x" * 5000, "/etc/passwd", "a.png"])
def test_no_upload(tmp_path, path):
    assert not is_upload(path, tmp_path)


def test_an_upload(tmp_path):
    (tmp_path / "a.png").touch()
    assert is_upload(str(tmp_path / "a.png"), tmp_path)
    (tmp_path / "link").symlink_to(tmp_path)  # as macOS has one for /tmp
    assert is_upload(str(tmp_path / "a.png"), tmp_path / "link")


class TestReadUpload:
    def test_many_pixels_are_not_decoded(self, tmp_path, monkeypatch):
        monkeypatch.setattr(uploads, "read_image", lambda _: pytest.fail("decoded"))
        for size in ((5001, 5000), (13_000, 13_000), (20_000, 20_000)):
            Image.new("1", size).save(tmp_path / "bomb.png")
            with pytest.raises(TooLargeError, match="more than 25,000,000 pixels; drop a smaller"):
                read_upload(str(tmp_path / "bomb.png"))

    @pytest.mark.parametrize("ending", ["png", "jpg", "webp", "bmp", "gif", "tif"])
    def test_kinds(self, tmp_path, ending):
        Image.new("RGB", (20, 30)).save(tmp_path / f"a.{ending}")
        assert read_upload(str(tmp_path / f"a.{ending}")).size == (20, 30)

    def test_what_another_program_would_read(self, tmp_path):
        Image.new("RGB", (20, 30)).save(tmp_path / "a.eps")
        (tmp_path / "a.eps").rename(tmp_path / "a.png")
        with pytest.raises(BadImageError):
            read_upload(str(tmp_path / "a.png"))
