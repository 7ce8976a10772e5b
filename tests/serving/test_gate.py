"""Requests as a program or another site's page may send them."""

from __future__ import annotations

import asyncio

import pytest

pytest.importorskip("gradio")
from starlette.testclient import TestClient

from pplr_lightning.gallery import SearchEngine
from pplr_lightning.serving.app import build_app
from pplr_lightning.serving.search_page import build_page


@pytest.fixture(scope="module")
def client(made, tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GRADIO_TEMP_DIR", str(tmp_path_factory.mktemp("uploads")))
        app = build_app(build_page(SearchEngine.load(made.index, made.checkpoint)))
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


@pytest.mark.parametrize(
    ("path", "most", "kind"),
    [
        ("upload", 50, "multipart/form-data; boundary=b"),
        ("run/predict", 1, "application/json"),
        ("queue/join", 1, "application/json"),
    ],
)
def test_what_does_not_end_is_not_read_to_its_end(client, path, most, kind):
    read, answers = [], []
    first = b'--b\r\nContent-Disposition: form-data; name="files"; filename="a.png"\r\n\r\n'

    async def receive():
        read.append(1)
        assert len(read) < 200
        body = first if len(read) == 1 else b"x" * 2**20
        return {"type": "http.request", "body": body, "more_body": True}

    async def send(message):
        answers.append(message)

    headers = [(b"host", b"localhost:7860"), (b"content-type", kind.encode())]
    scope = {
        "type": "http", "method": "POST", "scheme": "http", "query_string": b"", "root_path": "",
        "path": f"/gradio_api/{path}", "headers": headers,
    }  # fmt: skip
    asyncio.run(client.app(scope, receive, send))
    assert len(read) <= most + 3
    assert answers[0]["status"] == 413
    assert (b"connection", b"close") in answers[0]["headers"]
    assert answers[1]["body"] == b"too large"


@pytest.mark.parametrize(
    "path",
    [
        "openapi.json", "docs", "redoc", "gradio_api/openapi.json", "gradio_api/dev/reload",
        "monitoring", "gradio_api/mcp/schema", "gradio_api/proxy=http://evil.example",
    ],
)  # fmt: skip
def test_is_not_described(client, path):
    assert client.get(f"/{path}").status_code == 404


def test_what_a_proxy_would_say_is_not_repeated(client):
    headers = {"X-Forwarded-Host": "evil.example", "X-Forwarded-Proto": "https"}
    for path in ("/", "/config"):
        answer = client.get(path, headers=headers)
        assert answer.status_code == 200
        assert "evil.example" not in answer.text
        assert "https://localhost" not in answer.text
