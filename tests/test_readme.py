"""The README's Python blocks run as they stand, on data and sizes made small."""

from __future__ import annotations

import re

import pytest
import torch

pytest.importorskip("sybil")

from .conftest import ROOT
from .documents import PAGES, blocks, commands, run_python

BLOCKS = [block for page in PAGES for block in blocks(page, "python")]


@pytest.fixture
def block():
    return lambda word: next(text for text in BLOCKS if word in text)


def test_it_is_short():
    assert len((ROOT / "README.md").read_text().splitlines()) < 200


def test_its_links_lead_somewhere():
    text = (ROOT / "README.md").read_text()
    links = {link for link in re.findall(r"\]\(([^)]*)\)", text) if "://" not in link}
    assert len(links) > 15
    for link in links:
        path, _, anchor = link.partition("#")
        page = ROOT / (path or "README.md")
        assert page.is_file(), link
        if anchor:
            headings = re.findall(r"^#+ (.*)$", page.read_text(), flags=re.M)
            slugs = {re.sub(r"[^\w -]", "", heading.lower()) for heading in headings}
            assert anchor.replace("-", " ") in {slug.replace("-", " ") for slug in slugs}


def test_own_script(block, desk, made_small):
    script = block("Trainer(")
    assert len([line for line in script.splitlines() if line.strip()]) < 15
    trainer = run_python(ROOT / "README.md")["trainer"]
    assert trainer.global_step == 2
    assert {"val/mAP", "labels/clusters"} <= set(trainer.callback_metrics)


def test_sharing(block, desk):
    scope: dict[str, object] = {}
    exec(block("save_pretrained"), scope)
    images = torch.randn(2, 3, 64, 32)
    assert torch.equal(scope["module"].eval()(images), scope["again"](images))
    assert "license: cc-by-nc-4.0" in (desk / "my-model/README.md").read_text()


def test_search(block, desk, drawn):
    pytest.importorskip("faiss")
    scope: dict[str, object] = {}
    exec(block("Gallery.build"), scope)
    assert len(scope["images"]) == 10
    sought = sorted((drawn / "bounding_box_train").glob("*.png"))[4]  # someone.jpg
    assert scope["images"][0].path == str(sought)


def test_commands_of_the_search(desk, run):
    pytest.importorskip("faiss")
    block = next(text for text in blocks(ROOT / "README.md", "bash") if "--query" in text)
    (desk / "embeddings.parquet").unlink()
    for call in list(commands(block, desk)):
        assert call[:3] == ["python", "-m", "pplr_lightning"]
        matches = run(*call[3:])
    assert (desk / "search.png").is_file()
    assert matches.rows.shape == (1, 10)
    assert matches.similarity[0, 0] > 0.99
