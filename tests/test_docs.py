"""Every block of code in the README and in the pages of the documentation runs or is checked."""

from __future__ import annotations

import ast
import json
import re

import pytest

pytest.importorskip("sybil")

from .conftest import ROOT
from .documents import PAGES, blocks, check, commands, run_python

LANGUAGES = {"bash", "bibtex", "python", "text", "yaml"}


def with_blocks(*languages, pages=PAGES):
    return [
        pytest.param(page, id=str(page.relative_to(ROOT)))
        for page in pages
        if any(blocks(page, language) for language in languages)
    ]


@pytest.mark.parametrize(
    "page", with_blocks("python", pages=PAGES[1:])
)  # test_readme.py runs the README
def test_python_runs(page, desk, made_small):
    scope = run_python(page)
    if page.stem == "concepts":
        assert 15 < scope["labels"].max() < 25  # of 20 people
        assert scope["agreement"].shape == (200, 3)
        assert 0.5 < scope["metrics"]["mAP"] <= 1


@pytest.mark.parametrize("page", with_blocks("bash", "yaml"))
def test_commands_and_configs_parse(page, desk, monkeypatch):
    for text in blocks(page, "yaml"):
        (desk / "mine.yaml").write_text(text)
        files = [f"--config={ROOT / 'configs/market1501.yaml'}", "--config=mine.yaml"]
        check(["python", "-m", "pplr_lightning", "fit", *files], monkeypatch)
    for text in blocks(page, "bash"):
        for call in commands(text, desk):
            check(call, monkeypatch)


def test_imports_point_down_the_table_of_rooms():
    text = (ROOT / "docs/architecture.md").read_text().split("## Rooms")[1].split("\n## ")[0]
    cells = [line.split("|")[1] for line in text.splitlines() if line.startswith("| `")]
    level = {
        re.sub(r"(\.py|/)$", "", name): place
        for place, cell in enumerate(cells)
        for name in re.findall(r"`([\w.]+/?)`", cell)
    }
    package = ROOT / "src/pplr_lightning"
    found = {file.relative_to(package).parts[0] for file in package.rglob("*.py")}
    assert {name.removesuffix(".py") for name in found} == {*level, "__init__"}
    upward = [
        f"{file.relative_to(package)} imports {room}"
        for file in package.rglob("*.py")
        if (own := file.relative_to(package).parts[0].removesuffix(".py")) != "__init__"
        for room in rooms_imported(file)
        if level.get(room, len(cells)) < level[own]
    ]
    assert not upward


def rooms_imported(file):
    """The rooms of which a file imports something, in whatever scope."""
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module == "pplr_lightning":
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and str(node.module).startswith("pplr_lightning."):
            yield node.module.split(".")[1]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_block_has_a_language_that_is_looked_at(page):
    openings = re.findall(r"^ *```(\S*).*$(?:[\s\S]*?)^ *```$", page.read_text(), flags=re.M)
    unknown = {name for name in openings if not name.startswith("{")} - LANGUAGES
    assert not unknown


@pytest.mark.parametrize(
    "command",
    [
        "python -m pplr_lightning fit --model.betta 0.5",
        "python -m pplr_lightning fit --config configs/demo.yaml --model.network.parts 3",
        "python -m pplr_lightning export --ckpt last.ckpt --formt onnx",
        "python benchmarks/labels.py --image 5 --no-such",
    ],
)
def test_a_wrong_option_is_found(command, desk, monkeypatch):
    (call,) = commands(command, desk)
    with pytest.raises(SystemExit):
        check(call, monkeypatch)


@pytest.mark.parametrize(
    "command",
    [
        "make dmo",
        "pip install '.[gpus]'",
        "docker build --build-arg TROCH=cpu .",
        "docker run --rm pplr make tset",
        "pythn -m x",
        "rm -rf /",
    ],
)
def test_a_wrong_command_is_found(command, desk, monkeypatch):
    with pytest.raises(AssertionError):
        check(*commands(command, desk), monkeypatch)


def test_what_extends_the_library_is_short():
    """Each under 60 lines, a method and a labeler, as docs/extending.md writes them out."""
    classes = [
        node
        for block in blocks(ROOT / "docs/extending.md", "python")
        for node in ast.parse(block).body
        if isinstance(node, ast.ClassDef)
    ]
    assert [node.name for node in classes] == ["ChainedClusters", "TrustedContrastModule"]
    assert all(node.end_lineno - node.lineno < 60 for node in classes)


@pytest.mark.parametrize(
    "notebook", sorted((ROOT / "notebooks").glob("*.ipynb")), ids=lambda p: p.stem
)
def test_a_notebook_keeps_nothing_that_it_showed(notebook):
    cells = json.loads(notebook.read_text())["cells"]
    assert [cell["id"] for cell in cells] == [f"cell-{place}" for place in range(len(cells))]
    for cell in cells:
        if cell["cell_type"] == "code":
            assert (cell["outputs"], cell["execution_count"]) == ([], None)
            compile("".join(cell["source"]), str(notebook), "exec")


@pytest.mark.parametrize("crops", ["", "my_crops"])
def test_commands_of_the_colab_notebook_parse(crops, desk, monkeypatch):
    """Its cells run in the order of the page; `pplr` parses instead of running."""
    pytest.importorskip("IPython")
    cells = json.loads((ROOT / "notebooks/colab.ipynb").read_text())["cells"]
    settings, *middle, report = ["".join(c["source"]) for c in cells if c["cell_type"] == "code"]
    scope, calls = {}, []

    def parse(*words):
        calls.append([str(word) for word in words])
        check(["python", "-m", "pplr_lightning", *calls[-1]], monkeypatch)

    exec(settings, scope)
    scope["CROPS"] = crops
    for source in middle:
        exec(source, scope)
        scope["pplr"] = parse
    assert len(calls) == 1
    (scope["run"]).mkdir(parents=True)
    (scope["run"] / "report.html").write_text("<p class='x'>a & b</p>")
    exec(report, scope)
    assert "&lt;p class=&#x27;x&#x27;&gt;a &amp; b" in scope["frame"]
