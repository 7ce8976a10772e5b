from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from pplr_lightning.report.run_page import write_comparison, write_report

from .conftest import epoch, evaluated, history, options

SECTIONS = [
    "setting", "results", "advice", "labels", "curves", "figures", "time", "environment", "config",
]  # fmt: skip
VOID = {"meta", "img", "br", "line", "path", "circle"}


class Page(HTMLParser):
    """A page's sections with their text, its tags, and what they point to."""

    def __init__(self, file: Path) -> None:
        super().__init__()
        self.sections: dict[str, str] = {"": ""}
        self.tags: list[str] = []
        self.links: list[str] = []
        self.open: list[str] = []
        self.source = file.read_text(encoding="utf-8")
        self.feed(self.source)
        self.close()

    def handle_starttag(self, tag, attrs):
        values = dict(attrs)
        self.tags.append(tag)
        if tag not in VOID:
            self.open.append(tag)
        if tag == "section":
            self.sections[values["id"]] = ""
        self.links += [
            value
            for name, value in attrs
            if name in ("src", "href", "xlink:href", "data", "srcset")
        ]

    def handle_endtag(self, tag):
        if tag not in VOID:
            assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] != "style":
            self.sections[list(self.sections)[-1]] += f"{data} "

    def text(self, section: str) -> str:
        return " ".join(self.sections[section].split())


@pytest.fixture
def report(make_folder):
    return lambda **options: Page(write_report(make_folder(**options)))


def test_answers_what_a_stranger_asks(report):
    page = report()
    assert page.open == []  # every tag is closed
    assert list(page.sections)[1:] == SECTIONS
    assert "Unsupervised: clusters" in page.text("setting")
    assert "3 of 3 epochs finished" in page.text("setting")
    assert "mAP 20.0 50.0 49.0 +29.0" in page.text("results")
    assert "publish the last" in page.text("results")
    assert "clusters 70 72" in page.text("labels")
    assert "None of the rules" in page.text("advice")
    assert "Retrieval, %" in page.text("curves")
    assert "mAP 49" in page.text("curves")
    assert "training 1 min 0 s 20 s 32" in page.text("time")
    assert "versions.torch 2.4.0" in page.text("environment")
    assert "pseudo_labels.labeler.eps 0.45" in page.text("config")


def test_loads_nothing(report):
    page = report(figures=("ranking-epoch2.png", "clusters-epoch2.png"))
    assert "script" not in page.tags
    assert "link" not in page.tags
    assert len(page.links) == 2
    assert all(link.startswith("data:image/png;base64,") for link in page.links)
    assert not re.search(r"https?:|url\(|@import", page.source)
    assert "default-src 'none'" in page.source


def test_shows_clusters_where_there_is_no_map(report):
    rows = [epoch(0), epoch(1, labels_largest=0.08, labels_kept=0.75, labels_merged=0.05)]
    figures = ("ranking-epoch1.png", "clusters-epoch1.png")
    page = report(rows=rows, figures=figures)
    assert "no number shows that clusters are people" in page.text("results")
    assert "clusters, epoch 1" in page.text("results")
    assert "clusters, epoch 1" not in page.text("figures")
    assert "ranking, epoch 1" in page.text("figures")
    assert "8.0 % in the largest cluster 75.0 % of the clusters kept" in page.text("")
    assert "largest cluster, % of the images 8.0" in page.text("labels")
    assert "merged with others, % 5.0" in page.text("labels")


def test_says_how_to_get_the_figure_of_clusters(report):
    page = report(rows=[epoch(0)])
    assert "No figure of clusters was drawn" in page.text("results")


def test_serves_dark_screens_phones_and_paper(report):
    source = report().source
    assert "prefers-color-scheme: dark" in source
    assert "@media print" in source
    assert 'name="viewport"' in source


def test_escapes_everything(make_folder):
    evil = "<script>alert('&\"')</script>"
    config = options(model__network__weights=evil, pseudo_labels__labeler__eps=evil, **{evil: evil})
    folder = make_folder(
        f"demo/<b>{'x' * 5}",
        config=config,
        environment={"versions": {evil: evil}},
        figures=("ranking-epoch2.png",),
        rows=[{**epoch(0, labels_outliers=0.9), f"val/{evil}": 0.5, **evaluated(0.5)}],
    )
    (folder / "figures/captions.json").write_text('{"ranking-epoch2.png": "<b>\\" onload=x"}')
    page = Page(write_report(folder))
    assert page.open == []
    assert "script" not in page.tags
    assert evil in page.text("config")
    assert evil in page.text("setting")
    assert evil in page.text("environment")
    assert evil in page.text("advice")
    assert evil in page.text("results")
    assert '<b>" onload=x' in page.text("figures")
    assert "demo/<b>xxxxx" in page.text("")
    comparison = Page(write_comparison(folder, make_folder("demo/b"), folder / "comparison.html"))
    assert "script" not in comparison.tags
    assert evil in comparison.text("config")
    assert "A: demo/<b>xxxxx" in comparison.text("curves")


def test_names_nobodys_home(report):
    weights = "/home/jane/secret/last.ckpt"
    source = report(config=options(model__network__weights=weights)).source
    assert "jane" not in source
    assert "~/secret/last.ckpt" in source


def test_is_the_same_for_the_same_input(make_folder):
    folder = make_folder(figures=("ranking-epoch2.png",))
    first = write_report(folder).read_bytes()
    assert write_report(folder).read_bytes() == first
    assert not list(folder.glob("*.part"))


class TestWhatIsMissing:
    def test_nothing_trained(self, report):
        page = report(rows=[])
        assert "No epoch was begun" in page.text("labels")
        assert "not evaluated" in page.text("results")
        assert "nothing to draw" in page.text("curves")
        assert "left no times" in page.text("time")
        assert "The run ended after 0 of 3 epochs." in page.text("advice")

    def test_stopped_in_the_first_epoch(self, report):
        unfinished = {k: v for k, v in epoch(0).items() if k not in ("finished", "train/loss_pglr")}
        page = report(rows=[unfinished])
        assert "0 of 3 epochs finished, 10 steps" in page.text("setting")
        assert "clusters 70" in page.text("labels")

    def test_without_identities(self, report):
        known = ("labels/ari", "labels/precision", "labels/recall")
        rows = [{k: v for k, v in row.items() if k not in known} for row in history()]
        page = report(rows=rows)
        assert "Rand" not in page.text("labels")
        assert "identities" not in page.text("curves")

    def test_identities_as_labels(self, report):
        page = report(config=options(pseudo_labels__labeler="pplr_lightning.labelers.Identities"))
        assert "Supervised" in page.text("setting")
        assert page.text("labels").endswith("The labels are the same in every epoch; see Setting.")
        assert "Labels against" not in page.text("curves")
        assert "Unsupervised" not in page.source

    def test_agreement(self, report):
        assert "Agreement" in report().text("labels")
        rows = history()
        for row in rows:
            row.pop("labels/agreement_mean", None)
        page = report(name="demo/none", rows=rows)
        assert "greement" not in page.text("labels") + page.text("curves") + page.text("advice")

    def test_figures(self, report):
        assert "figures.every_n_epochs" in report().text("figures")

    def test_config_and_environment(self, report):
        page = report(config=None, environment=None)
        assert "There is no config.yaml" in page.text("")
        assert "left no config.yaml" in page.text("config")
        assert "left no environment.json" in page.text("environment")

    def test_a_broken_line_is_told(self, make_folder):
        folder = make_folder()
        with (folder / "history.csv").open("a") as file:
            file.write("3,1.0")
        page = Page(write_report(folder))
        assert "history.csv, line 6: not readable, left out." in page.text("")
        assert "mAP 20.0 50.0 49.0" in page.text("results")


def test_numbers_that_cannot_be(make_folder):
    """Values of a damaged file must not stop the page."""
    data = {"training images": 10**400, "query images": 10**400, "gallery images": True}
    folder = make_folder(
        rows=[
            {"epoch": -1.0, "train/loss": 1e308, "val/mAP": 5e-324, "val/rank-²": 0.5},
            {"epoch": 0.0, "train/loss": -1e308, "time/extraction": 5.0, "time/clustering": -5.0},
            {"epoch": 1e300, "val/mAP": 1e308, "labels/clusters": 1e15},
        ],
        config={"trainer": {"max_epochs": 10**400}, "data": {"batch_size": 10**400}},
        environment={"data": data},
    )
    page = Page(write_report(folder))
    assert "line 4: not readable, left out." in page.text("")
    assert "The run left no times." in page.text("time")
    assert "mAP" in page.text("curves")
    assert "Losses" not in page.text("curves")
    write_comparison(folder, folder, folder / "comparison.html")


class TestComparison:
    def test_puts_two_runs_side_by_side(self, make_folder, tmp_path):
        one = make_folder("demo/a")
        config = options(pseudo_labels__labeler__eps=0.6)
        other = make_folder("demo/b", config=config, rows=history()[:3])
        page = Page(write_comparison(one, other, tmp_path / "out/comparison.html"))
        assert page.open == []
        assert list(page.sections)[1:] == [
            "results", "setting", "config", "curves", "environment",
        ]  # fmt: skip
        assert "last mAP, % 49.0 50.0 +1.0" in page.text("results")
        assert page.text("config") == "Options that differ A B pseudo_labels.labeler.eps 0.45 0.6"
        assert page.text("environment").startswith("Environment that differs None.")
        assert "A: demo/a 49 B: demo/b 50" in page.text("curves")
        assert not re.search(r"https?:|url\(|@import", page.source)

    def test_of_runs_that_left_little(self, make_folder, tmp_path):
        folders = make_folder("a", rows=[], config=None), make_folder("b", environment=None)
        page = Page(write_comparison(*folders, tmp_path / "comparison.html"))
        assert "one of the runs left no config.yaml" in page.text("config")
        assert "one of the runs left no environment.json" in page.text("environment")
        assert "There is no config.yaml" in page.text("")
