"""The documentation site: built with warnings as errors, whole, and without anything remote."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest
import yaml

pytest.importorskip("sphinx")

from extensions import options

from pplr_lightning import labelers, methods

from .conftest import ROOT

SECTIONS = ("model", "data", "pseudo_labels", "evaluation", "figures", "record")
WITHIN = ("model.network", "pseudo_labels.labeler")  # classes that have options of their own
LOADED = {"script": "src", "img": "src", "link": "href", "iframe": "src", "source": "src"}


class Page(HTMLParser):
    """What a page links to, what it loads and which anchors it has."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.links: set[str] = set()
        self.loads: set[str] = set()
        self.anchors: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = dict(attrs)
        self.anchors.add(found.get("id") or "")
        if tag == "a":
            self.links.add(found.get("href") or "")
        elif tag in LOADED:
            self.loads.add(found.get(LOADED[tag]) or "")


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Path:
    """The site, built as `make docs` does."""
    out = tmp_path_factory.mktemp("site")
    makefile = (ROOT / "Makefile").read_text()
    recipe = re.search(r"^docs: .*\n\t\S+ (-m sphinx .*) docs build/docs$", makefile, flags=re.M)
    done = subprocess.run(
        [sys.executable, *recipe[1].split(), str(ROOT / "docs"), str(out)],
        capture_output=True, text=True, timeout=600, env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert "--fail-on-warning" in recipe[1]
    assert done.returncode == 0, done.stderr
    return out


@pytest.fixture(scope="module")
def pages(site) -> dict[Path, Page]:
    return {file: Page(file.read_text()) for file in site.rglob("*.html")}


def test_every_link_leads_somewhere(pages):
    assert len(pages) > 20
    broken = []
    for file, page in pages.items():
        for link in page.links | page.loads:
            parts = urlsplit(link)
            if parts.scheme or parts.netloc:
                continue
            target = (file.parent / unquote(parts.path)).resolve() if parts.path else file
            anchor = unquote(parts.fragment)
            if not target.is_file() or (anchor and anchor not in pages[target].anchors):
                broken.append(f"{file.name}: {link}")
    assert not broken


def test_nothing_is_loaded_from_elsewhere(site, pages):
    loads = {link for page in pages.values() for link in page.loads}
    assert any(link.endswith(".css") or ".css?" in link for link in loads)
    assert not {link for link in loads if urlsplit(link).netloc}
    for sheet in site.rglob("*.css"):
        found = re.findall(r"(?:url\(|@import)\s*['\"]?(?:https?:)?//[^)'\"]*", sheet.read_text())
        assert not found, sheet.name


def test_formulas_are_drawn_by_the_browser(site):
    text = (site / "concepts.html").read_text()
    assert text.count("<math") > 40
    assert "\\frac" not in text
    assert "merror" not in text


def test_every_option_of_the_command_line_is_described(site, run, capsys):
    with pytest.raises(SystemExit):
        run("fit", f"--config={ROOT / 'configs/market1501.yaml'}", "--print_config")
    config = yaml.safe_load(capsys.readouterr().out)
    text = (site / "configuration.html").read_text()
    names = [name for section in SECTIONS for name in option_names(section, config[section])]
    assert {"model.beta", "model.network.num_parts", "pseudo_labels.labeler.eps"} <= set(names)
    for name in names:
        assert f'id="confval-{name}"' in text, name


def option_names(section: str, values: dict[str, Any]) -> Iterator[str]:
    """The options of a section, and of the classes within it."""
    for name, value in values.get("init_args", values).items():
        yield f"{section}.{name}"
        if f"{section}.{name}" in WITHIN:
            yield from option_names(f"{section}.{name}", value)


def test_every_method_and_labeler_is_described(site):
    text = (site / "configuration.html").read_text()
    for room, base in ((methods, methods.ReIDModule), (labelers, labelers.Labeler)):
        kinds = [kind.__name__ for kind in options.exported(room, base)]
        assert len(kinds) > 1
        for kind in kinds:
            assert re.search(rf"<h3>{kind}<", text), kind


def test_an_option_says_its_default_and_type(site):
    text = (site / "configuration.html").read_text()
    entry = text.split('id="confval-model.beta"')[1].split("</dd>")[0]
    assert re.search(r"float.*default.*0\.5.*Share of the cluster label", entry, flags=re.DOTALL)


class TestOptions:
    def test_describes_what_a_base_class_takes(self):
        class Base:
            """Is one.

            Args:
                size: How large
                    it is.
                names: Of what.
            """

            def __init__(self, size: int, *, names: tuple[str, ...] = ("a", "b")) -> None: ...

        class Derived(Base):
            """Has no options of its own."""

        assert list(options.describe(Derived)) == [
            ("size", "int", None, "How large it is."),
            ("names", "tuple[str, ...]", "[a, b]", "Of what."),
        ]

    def test_refuses_an_option_without_description(self):
        class Silent:
            """Says nothing."""

            def __init__(self, size: int = 1) -> None: ...

        with pytest.raises(ValueError, match="Silent does not describe its option size"):
            list(options.describe(Silent))
