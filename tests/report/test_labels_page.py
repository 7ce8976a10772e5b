from __future__ import annotations

import math
from html import unescape
from html.parser import HTMLParser

import pytest
from PIL import Image

from pplr_lightning.report.labels_page import Candidate, lines, write_labels_page


def row(k1, eps, score, doubts=(), **more):
    return {
        "k1": k1, "k2": 2, "eps": eps, "min_samples": 4, "clusters": 1200.0, "outliers": 0.25,
        "largest": 0.031, "median_size": 5.5, "images_per_cluster": 7.25, "persistence": math.nan,
        "score": score, "doubts": list(doubts), **more,
    }  # fmt: skip


@pytest.fixture
def rows():
    return [row(k1, eps, k1 * eps) for k1 in (10, 16) for eps in (0.5, 0.6)]


@pytest.fixture
def page(rows, tmp_path):
    picture = tmp_path / "clusters1.png"
    Image.new("RGB", (4, 4)).save(picture)

    def write(config="candidate1.yaml", doubts=(), **options):
        rows[3]["doubts"] = list(doubts)
        text = "" if doubts else "pseudo_labels: <x>\n"
        one = Candidate("k1 16", rows[3], config, text, picture, "four images")
        write_labels_page(
            tmp_path / "labels.html", title="a & b", start="x.pth", tiles=[("4", "images")],
            rows=rows, candidates=[one], **options,
        )  # fmt: skip
        return (tmp_path / "labels.html").read_text()

    return write


class Elements(HTMLParser):
    def __init__(self, text):
        super().__init__()
        self.found = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))


def test_needs_no_other_file_and_escapes(page):
    text = page()
    for tag, attributes in Elements(text).found:
        for name in ("src", "href"):
            assert attributes.get(name, "data:").startswith("data:"), tag
    assert "Labels of a &amp; b" in text
    assert "pseudo_labels: &lt;x&gt;" in text


def test_map_shades_and_frames(page):
    cells = [a for tag, a in Elements(page()).found if tag == "td" and "style" in a]
    assert len(cells) == 4
    assert [a["class"].split() for a in cells] == [[], [], [], ["chosen"]]
    assert "var(--c0) 45%" in cells[3]["style"]


def test_says_that_no_number_proves_it(page):
    text = " ".join(page(images_per_person=11).split())
    assert "No number that is made without identities proves that clusters are people" in text
    assert "some 11 images here" in text
    assert "--config candidate1.yaml" in text
    assert "ARI" not in text
    assert "Every setting was set aside" not in text


def test_commands_can_be_pasted(page):
    commands = unescape(page("my labels/candidate1.yaml", pairs="a's.csv"))
    for command in (
        "fit --config configs/own_images.yaml --config 'my labels/candidate1.yaml'<",
        "correct --labels 'my labels' --candidate 1 --out corrections.parquet<",
        "--config 'my labels/candidate1.yaml' --pseudo_labels.pairs corrections.parquet<",
    ):
        assert command in commands
    commands = unescape(page(pairs="a's.parquet"))  # further answers go to those that are there
    assert "correct --labels . --candidate 1 --out 'a'\"'\"'s.parquet'<" in commands
    assert "--pseudo_labels.pairs 'a'\"'\"'s.parquet'<" in commands


def test_says_that_all_are_in_doubt(page):
    text = page(doubts=["why so"])
    assert "Every setting was set aside" in text
    assert "Set aside: why so." in text
    assert "Train with it" not in text


def test_lines(rows):
    rows[1]["doubts"] = ["one", "two"]
    head, first, second, *_ = lines(rows)
    assert head.split()[:4] == ["k1", "k2", "eps", "min"]
    assert first.split() == ["10", "2", "0.5", "4", "1,200", "25%", "3.1%", "5.5", "7.2", "5.000"]
    assert second.endswith("6.000  one; two")
