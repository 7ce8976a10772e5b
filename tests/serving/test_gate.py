"""Requests as a program or another site's page may send them."""

from __future__ import annotations

import pytest

pytest.importorskip("gradio")
from starlette.testclient import TestClient

from pplr_lightning.gallery import SearchEngine
from pplr_lightning.serving.app import build_app


@pytest.fixture(scope="module")
def client(made, tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GRADIO_TEMP_DIR", str(tmp_path_factory.mktemp("uploads")))
        app = build_app(SearchEngine.load(made.index, made.checkpoint))
        yield TestClient(app, base_url="http://localhost:7860")


UPLOAD = {"files": ("a.png", b"bytes")}


@pytest.mark.parametrize("origin", ["http://evil.example", "http://localhost:8000", "null", ""])
def test_another_sites_page_asks_in_vain(client, origin):
    answer = client.post("/gradio_api/upload", files=UPLOAD, headers={"Origin": origin})
    assert (answer.status_code, answer.text) == (403, "asked for by another site's page")
    assert client.get("/", headers={"Origin": origin}).status_code == 403


@pytest.mark.parametrize("headers", [{}, {"Origin": "http://localhost:7860"}])
def test_the_pages_own_uploads_are_taken(client, headers):
    assert client.post("/gradio_api/upload", files=UPLOAD, headers=headers).status_code == 200


@pytest.mark.parametrize("path", ["openapi.json", "docs", "redoc"])
def test_is_not_described(client, path):
    assert client.get(f"/{path}").status_code == 404


def test_what_a_proxy_would_say_is_not_repeated(client):
    headers = {"X-Forwarded-Host": "evil.example", "X-Forwarded-Proto": "https"}
    for path in ("/", "/config"):
        answer = client.get(path, headers=headers)
        assert answer.status_code == 200
        assert "evil.example" not in answer.text
        assert "https://localhost" not in answer.text
