"""The structure of the package; that imports point down is tested beside the page that draws it."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pplr_lightning

PACKAGE = Path(pplr_lightning.__file__).parent
FILES = sorted(PACKAGE.rglob("*.py"))


def test_a_files_name_is_used_once():
    counts = Counter(path.name for path in FILES if path.name != "__init__.py")
    assert [name for name, count in counts.items() if count > 1] == []


def test_few_files_lie_at_the_top():
    assert len(list(PACKAGE.glob("*.py"))) <= 6


def test_every_room_says_what_it_is_for():
    for path in FILES:
        if path.name == "__init__.py":
            assert ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))), path


def test_functions_know_nothing_of_lightning():
    for path in (PACKAGE / "functional").glob("*.py"):
        names = [
            node.module if isinstance(node, ast.ImportFrom) else node.names[0].name
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
            if isinstance(node, (ast.Import, ast.ImportFrom))
        ]
        assert not any(str(name).startswith("lightning") for name in names), path


def test_what_draws_writes_or_shows_is_loaded_when_it_is_wanted():
    heavy = ("gallery", "report.run_page", "serving", "visualization")
    unwanted = [*(f"pplr_lightning.{room}" for room in heavy), "jinja2", "pyarrow", "sklearn"]
    code = (
        "import sys\n"
        "from pplr_lightning import PPLRModule, PseudoLabeling, RetrievalEvaluation, RunRecord\n"
        f"print(sorted(sys.modules.keys() & {unwanted}))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=600)
    assert done.stdout == "[]\n", done.stderr
