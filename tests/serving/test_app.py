"""The real command, in a real browser."""

from __future__ import annotations

import base64
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from urllib.parse import quote, urlsplit

import pytest

from ..conftest import ROOT
from ..galleries import EVIL

pytest.importorskip("gradio")
sync_api = pytest.importorskip("playwright.sync_api", reason="needs playwright to drive a browser")
BROWSER = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)
if BROWSER is None:
    pytest.skip("needs Chromium (apt-get install chromium)", allow_module_level=True)
pytestmark = pytest.mark.timeout(300)


@pytest.fixture(scope="module")
def url(made, tmp_path_factory):
    """The address of a running page; that it ends well is checked in the end."""
    folder = tmp_path_factory.mktemp("uploads")
    command = [sys.executable, "-m", "pplr_lightning", "serve", "--port=0"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "TMPDIR": str(folder)}
    with (folder / "errors").open("w") as errors:
        server = subprocess.Popen(
            [*command, f"--index={made.index}", f"--ckpt_path={made.checkpoint}"],
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            cwd=ROOT,
            env=environment,
        )
    try:
        line = server.stdout.readline()
        found = re.fullmatch(
            r"30 images: open (http://127\.0\.0\.1:\d+/) in a browser of this machine; Ctrl-C .*\n",
            line,
        )
        assert found, line + (folder / "errors").read_text()
        assert list(folder.glob("pplr-serve-*"))
        yield found[1]
    finally:
        server.send_signal(signal.SIGTERM)
        code = server.wait(timeout=600)
    assert code == 0
    assert not list(folder.glob("pplr-serve-*"))  # what was uploaded is gone
    assert "Traceback" not in (folder / "errors").read_text()


@pytest.fixture(scope="module")
def browser():
    quiet = ("background-networking", "component-update", "sync", "quic", "gpu")
    with sync_api.sync_playwright() as driver:
        started = driver.chromium.launch(
            executable_path=BROWSER,
            args=["--no-sandbox", "--no-first-run", *(f"--disable-{what}" for what in quiet)],
        )
        yield started
        started.close()


@pytest.fixture
def page(browser, url):
    """The page, open; nothing may go wrong on it, and nothing be asked of another machine."""
    context = browser.new_context(viewport={"width": 1366, "height": 900})
    opened = context.new_page()
    opened.set_default_timeout(60_000)
    asked: list[str] = []
    errors: list[str] = []
    opened.on("request", lambda request: asked.append(request.url))
    opened.on("pageerror", lambda error: errors.append(str(error)))
    opened.on("console", lambda said: errors.append(said.text) if said.type == "error" else None)
    opened.goto(url)
    opened.wait_for_selector("#hits .said")
    yield opened
    context.close()
    hosts = {urlsplit(one).netloc for one in asked if urlsplit(one).scheme not in ("data", "blob")}
    assert hosts == {urlsplit(url).netloc}
    assert errors == []


def drop(page, path: Path) -> None:
    page.set_input_files("#query input[type=file]", str(path))
    page.wait_for_selector(".hit, .said.alert")


def shown(page) -> list[str]:
    """File names of the images found, in their order."""
    return [
        hit.get_attribute("title").rsplit("/", 1)[-1] for hit in page.query_selector_all(".hit")
    ]


def test_search(page, made):
    assert "not proven to be the same person" in page.inner_text("#notice")
    drop(page, made.images[4])
    names = shown(page)
    assert names[0] == "4.png"
    assert len(names) == 20
    first = page.inner_text(".hit >> nth=0").split()
    assert first[:2] == ["1", "1.000"]
    assert first[2:] == ["camera", "1", "person", "4"]
    page.wait_for_selector("#why h2")
    assert page.inner_text("#why h2") == "Why rank 1?"
    assert page.inner_text("#why .whole .figure") == "1.000"

    page.click(".hit >> nth=2")
    page.wait_for_function("document.querySelector('#why h2').textContent === 'Why rank 3?'")
    figures = [float(one.inner_text()) for one in page.query_selector_all("#why .figure")]
    assert len(figures) == 3
    similarity = float(page.inner_text(".hit >> nth=2").split()[1])
    assert sum(figures) / 3 == pytest.approx(similarity, abs=0.002)
    assert names[2] in page.inner_text("#why .file")
    assert page.get_attribute(".hit >> nth=2", "aria-pressed") == "true"
    assert page.get_attribute(".hit >> nth=0", "aria-pressed") == "false"
    stripes = page.query_selector_all("#why .striped")
    assert [len(one.query_selector_all("i")) for one in stripes] == [2, 2]


FILE = """([content, make]) => {
  const bytes = Uint8Array.from(atob(content), (one) => one.charCodeAt(0));
  return new Function('bytes', make)(bytes);
}"""
PASTE = """const item = new ClipboardItem({'image/png': new Blob([bytes], {type: 'image/png'})});
return navigator.clipboard.write([item]);"""
DROP = """const transfer = new DataTransfer();
transfer.items.add(new File([bytes], 'dropped.png', {type: 'image/png'}));
for (const kind of ['dragenter', 'dragover', 'drop']) {
  const options = {dataTransfer: transfer, bubbles: true, cancelable: true};
  document.querySelector('#query button').dispatchEvent(new DragEvent(kind, options));
}"""


@pytest.mark.parametrize("make", [PASTE, DROP], ids=["paste", "drop"])
def test_ways_to_hand_over_an_image(page, made, make):
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    content = base64.b64encode(made.images[4].read_bytes()).decode()
    page.evaluate(FILE, [content, make])
    if make == PASTE:
        page.click("#query button[aria-label='Paste from clipboard']")
    page.wait_for_selector(".hit")
    assert shown(page)[0] == "4.png"


def test_options(page, made):
    drop(page, made.images[4])
    plain = shown(page)
    page.click("#rerank input")
    page.wait_for_selector(".hit:has-text('distance')")
    assert shown(page)[0] == "4.png"
    page.click("#rerank input")
    page.wait_for_selector(".hit:has-text('distance')", state="detached")

    page.click("#weights button")
    deadline = time.monotonic() + 300
    while shown(page) == plain and time.monotonic() < deadline:
        # Again where Gradio was still setting up the control, which then takes its first value.
        page.get_by_label("number input for global").fill("0")
        page.keyboard.press("Tab")
        page.wait_for_timeout(500)
    assert shown(page) != plain

    page.get_by_label("number input for Results").fill("30")
    page.keyboard.press("Tab")
    page.wait_for_function("document.querySelectorAll('.hit').length === 30")
    page.click("#cameras input")
    page.click("[role=option]:has-text('camera 1')")
    page.wait_for_function("document.querySelectorAll('.hit').length === 20")
    assert "camera 1" not in page.inner_text("#hits")


def test_names_and_files_as_they_may_be(page, made):
    drop(page, made.images[4])
    page.get_by_label("number input for Results").fill("30")
    page.keyboard.press("Tab")
    page.wait_for_function("document.querySelectorAll('.hit').length === 30")
    names = shown(page)
    assert EVIL in names
    page.click(f".hit >> nth={names.index(EVIL)}")
    page.wait_for_selector(f"#why h2:has-text('Why rank {1 + names.index(EVIL)}?')")
    assert page.inner_text("#why .file").endswith(EVIL)
    gone = page.locator(".hit", has=page.locator(".gone"))
    assert gone.count() == 1
    gone.click()
    page.wait_for_selector("#why .gone")
    assert "?" not in page.inner_text("#why .parts")


def test_no_image(page, made, tmp_path):
    (tmp_path / "notes.png").write_text("no image")
    drop(page, made.images[4])
    page.click("#query button[aria-label='Remove Image']")
    page.wait_for_selector("#hits .said.status")
    page.wait_for_selector("#why .why", state="detached")
    drop(page, tmp_path / "notes.png")
    message = page.inner_text(".said.alert")
    assert message == (
        "notes.png: this is no image, or a broken one; drop a JPEG, PNG or WebP file"
    )


def test_fits_a_phone_and_the_dark(browser, url, made):
    context = browser.new_context(viewport={"width": 390, "height": 844}, color_scheme="dark")
    opened = context.new_page()
    opened.goto(url)
    opened.wait_for_selector("#hits .said")
    drop(opened, made.images[4])
    opened.click(".hit >> nth=5")
    opened.wait_for_selector("#why h2:has-text('Why rank 6?')")
    width = opened.evaluate("document.documentElement.scrollWidth")
    assert width <= 390
    light = opened.evaluate("getComputedStyle(document.querySelector('#why h2')).color")
    assert min(map(int, re.findall(r"\d+", light)[:3])) > 180
    why, hits = (opened.locator(where).bounding_box() for where in ("#why", "#hits"))
    assert why["y"] < hits["y"]
    deadline = time.monotonic() + 300  # it is scrolled to
    while opened.locator("#why h2").bounding_box()["y"] < 0 and time.monotonic() < deadline:
        time.sleep(0.1)
    assert 0 <= opened.locator("#why h2").bounding_box()["y"] < 844
    context.close()


def post(url: str, number: int, *data, event=None) -> tuple[int, str]:
    """Sends an event of the page as a program may; its number is its place in `build_page`."""
    body = {"data": data, "fn_index": number, "session_hash": "abc1", "event_data": event}
    sent = urllib.request.Request(
        f"{url}gradio_api/run/predict",
        json.dumps(body).encode(),
        {"Content-Type": "application/json"},
    )
    try:
        with urllib.request.urlopen(sent) as found:
            return found.status, found.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


OPTIONS = (5, False, 200, [], 1, 1, 1)
MARKED = {"meta": {"_type": "gradio.FileData"}}  # what Gradio copies to where it has an address


def answer(url: str, **headers: str) -> tuple[int, dict[str, str]]:
    try:
        with urllib.request.urlopen(urllib.request.Request(url, headers=headers)) as found:
            return found.status, dict(found.headers)
    except urllib.error.HTTPError as error:
        return error.code, dict(error.headers)


class TestClosed:
    def test_no_file_of_the_gallery_has_an_address(self, url, made):
        for path in (made.images[4], made.index / "items.parquet", ROOT / "setup.cfg"):
            assert answer(f"{url}gradio_api/file={quote(str(path))}")[0] == 403

    @pytest.mark.parametrize("mark", [{}, MARKED])
    def test_no_image_but_an_uploaded_one_is_opened(self, url, made, mark):
        path = str(made.images[4])
        code, text = post(url, 0, {"path": path, **mark}, *OPTIONS)
        assert code == 200
        assert "4.png: was not uploaded" in text
        assert "data:image" not in text

    @pytest.mark.parametrize(
        "value", [{}, {"path": None}, {"path": "\0", "orig_name": 5}, [], "path", 5, True]
    )
    def test_what_is_no_upload_is_told(self, url, value):
        code, text = post(url, 0, value, *OPTIONS)
        assert code == 200
        assert "was not uploaded, or is removed by now; drop the image again" in text

    @pytest.mark.parametrize("event", [None, {}, {"place": 99}, {"place": -1}, [], 5])
    def test_a_choice_of_nothing(self, url, event):
        assert post(url, 2, None, None, event=event)[0] == 200

    def test_another_sites_name_for_this_machine(self, url):
        assert answer(url)[0] == 200
        assert answer(url, Host="localhost")[0] == 200
        assert answer(url, Host="evil.example")[0] == 400

    def test_the_browser_is_told_to_reach_nothing_else(self, url):
        headers = {name.lower(): value for name, value in answer(url)[1].items()}
        assert "default-src 'self'" in headers["content-security-policy"]
        assert "http" not in headers["content-security-policy"]
